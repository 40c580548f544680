// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/usage"
)

// perfect is a run that meets every target.
func perfect() *run {
	r := &run{
		names: []string{directly, through}, results: make(results),
		storm:  storms{of: map[string]outcome{directly: {took: 10 * time.Second}, through: {took: time.Second}}},
		cold:   storms{of: map[string]outcome{directly: {took: 10 * time.Second}, through: {took: 4 * time.Second, vaultCalls: 1000}}},
		waited: 2,
		called: map[string]usage.Resident{through: {Now: 20, Peak: 48}}, stormed: map[string]usage.Resident{through: {Now: 20, Peak: 48}},
	}
	direct := sample{p50: 200 * time.Microsecond, p99: time.Millisecond, rate: 100, vaultCPU: 100 * time.Microsecond}
	ours := sample{p50: 200 * time.Microsecond, p99: time.Millisecond, rate: 250, vaultCPU: 30 * time.Microsecond}
	for _, callers := range levels {
		for _, method := range methods {
			r.results.add(directly, method, callers, direct)
			r.results.add(through, method, callers, ours)
		}
		r.results.add(through, "Status", callers, sample{p50: 150 * time.Microsecond})
	}
	return r
}

func TestJudge(t *testing.T) {
	// worsen changes one figure of the binary.
	worsen := func(method string, callers int, change func(*sample)) func(*run) {
		return func(r *run) { change(&r.results.of(through, method, callers)[0]) }
	}
	beside := func(p50 time.Duration) func(*run) {
		return func(r *run) {
			r.names = append(r.names, before)
			for _, method := range methods {
				r.results.add(before, method, 1, sample{p50: p50})
			}
		}
	}
	for name, tc := range map[string]struct {
		change func(*run)
		missed []string // targets, by the beginning of their lines
	}{
		"all met":              {func(*run) {}, nil},
		"throughput":           {worsen("Encrypt", 128, func(s *sample) { s.rate = 249 }), []string{"Encrypt calls/s / direct, 128 callers"}},
		"tail":                 {worsen("Decrypt", 128, func(s *sample) { s.p99 *= 2 }), []string{"Decrypt p99 / direct, 128 callers"}},
		"p50 of some callers":  {worsen("Decrypt", 16, func(s *sample) { s.p50 *= 2 }), []string{"Decrypt p50 / direct, 16 callers"}},
		"p50 of one caller":    {worsen("Encrypt", 1, func(s *sample) { s.p50 *= 3 }), []string{"Encrypt p50 / (direct + Status), 1 caller"}},
		"Status":               {worsen("Status", 1, func(s *sample) { s.p50 *= 2 }), []string{"Status p50"}},
		"Vault's CPU time":     {worsen("Decrypt", 128, func(s *sample) { s.vaultCPU *= 2 }), []string{"Vault's CPU time per Decrypt"}},
		"as fast as before":    {beside(200 * time.Microsecond), nil},
		"slower than before":   {beside(100 * time.Microsecond), []string{"Encrypt p50 / before", "Decrypt p50 / before"}},
		"time of a cold start": {func(r *run) { r.cold.of[through] = outcome{took: 5 * time.Second} }, []string{"cold start, time"}},
		"calls of a cold start": {func(r *run) {
			r.cold.of[through] = outcome{took: time.Second, vaultCalls: 1001}
		}, []string{"cold start, calls"}},
		"storm":            {func(r *run) { r.storm.of[through] = outcome{took: 2 * time.Second} }, []string{"storm of few seeds"}},
		"wait":             {func(r *run) { r.waited = 2.1 }, []string{"longest wait of an Encrypt"}},
		"memory":           {func(r *run) { r.called[through] = usage.Resident{Peak: 48.1} }, []string{"resident memory at its peak, up to 256 callers"}},
		"memory of storms": {func(r *run) { r.stormed[through] = usage.Resident{Peak: 48.1} }, []string{"resident memory at its peak, cold starts included"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := perfect()
			tc.change(r)
			var out strings.Builder
			r.judge(&out)
			var missed []string
			for line := range strings.Lines(out.String()) {
				switch columns := strings.Split(line, "|"); {
				case strings.Contains(line, "| not met |"):
					missed = append(missed, columns[1])
				case !strings.Contains(line, "| met     |") && !strings.Contains(line, "this run") && strings.Trim(line, "|-:\n") != "":
					t.Errorf("no verdict in %q", line)
				}
			}
			if len(missed) != len(tc.missed) {
				t.Fatalf("missed %q, want %q", missed, tc.missed)
			}
			for _, want := range tc.missed {
				if !strings.Contains(strings.Join(missed, ""), want) {
					t.Errorf("missed %q, want %q", missed, want)
				}
			}
		})
	}
}

func TestRatioWithinRounds(t *testing.T) {
	r := make(results)
	// The second and third rounds were slow for all.
	for _, slow := range []time.Duration{1, 7, 30} {
		r.add(directly, "Encrypt", 1, sample{p50: slow * time.Millisecond})
		r.add(through, "Encrypt", 1, sample{p50: 3 * slow * time.Millisecond})
		r.add(through, "Status", 1, sample{p50: slow * time.Millisecond / 2})
	}
	if got := r.over(p50, through, directly, "Encrypt", 1); got != 3 {
		t.Errorf("got %v times direct, want 3", got)
	}
	if got := r.overFloor(through, "Encrypt", 1); got != 2 {
		t.Errorf("got %v times the floor, want 2", got)
	}
}

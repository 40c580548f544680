// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strconv"
	"time"
)

// figure is one number of a sample.
type figure struct {
	name  string
	of    func(sample) float64
	shown func(float64) string
}

var (
	p50      = figure{"p50", func(s sample) float64 { return float64(s.p50) }, shortFloat}
	p99      = figure{"p99", func(s sample) float64 { return float64(s.p99) }, shortFloat}
	rate     = figure{"calls/s", func(s sample) float64 { return s.rate }, func(f float64) string { return strconv.Itoa(int(f)) }}
	vaultCPU = figure{"Vault's CPU time per call", func(s sample) float64 { return float64(s.vaultCPU) }, shortFloat}
	longest  = figure{"longest", func(s sample) float64 { return float64(s.longest) }, shortFloat}
)

// middle returns the median of a figure.
func (f figure) middle(samples []sample) float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, f.of(s))
	}
	return median(all)
}

// ratio returns the median of the ratios within each round. Load that slows a whole
// round does not affect it.
func (f figure) ratio(a, b []sample) float64 {
	var ratios []float64
	for round := range min(len(a), len(b)) {
		ratios = append(ratios, f.of(a[round])/f.of(b[round]))
	}
	return median(ratios)
}

// over returns a figure of one contender divided by that of another.
func (r results) over(f figure, name, base, method string, callers int) float64 {
	return f.ratio(r.of(name, method, callers), r.of(base, method, callers))
}

// overFloor returns the p50 divided by the floor: the p50 of a direct call plus that
// of an RPC that does not call Vault.
func (r results) overFloor(name, method string, callers int) float64 {
	direct, status := r.of(directly, method, callers), r.of(through, "Status", callers)
	floor := make([]sample, len(direct))
	for i := range direct {
		floor[i].p50 = direct[i].p50 + status[i].p50
	}
	return p50.ratio(r.of(name, method, callers), floor)
}

func (r *run) print(w io.Writer) {
	for _, f := range []figure{p50, p99, rate, vaultCPU} {
		r.table(w, f.name+", and divided by that of direct calls", func(name, method string, callers int) string {
			shown := f.shown(f.middle(r.results.of(name, method, callers)))
			if name == directly {
				return shown
			}
			return fmt.Sprintf("%s %7.2f", shown, r.results.over(f, name, directly, method, callers))
		})
	}
	r.table(w, "p50 divided by F, which is direct p50 + Status p50", func(name, method string, callers int) string {
		if name == directly {
			return ""
		}
		return fmt.Sprintf("%.2f", r.results.overFloor(name, method, callers))
	})
	fmt.Fprintln(w)
	for _, callers := range levels {
		s := r.results.of(through, "Status", callers)
		fmt.Fprintf(w, "Status %4d callers   p50 %s  p99 %s  %s calls/s\n", callers,
			p50.shown(p50.middle(s)), p99.shown(p99.middle(s)), rate.shown(rate.middle(s)))
	}
	fmt.Fprintln(w, "Each figure is the median of all rounds; a ratio is the median of the ratios within each round.")
	r.costs.print(w)
	r.storm.print(w, r.names)
	r.cold.print(w, r.names)
	r.printMixed(w)
	fmt.Fprintf(w, "\nresident memory: peak with up to %d callers, peak with storms, at the end\n", mostCallers)
	for _, name := range r.names {
		if end, ok := r.stormed[name]; ok {
			fmt.Fprintf(w, "  %-16s %5.1f MiB  %5.1f MiB  %5.1f MiB\n", name, r.called[name].Peak, end.Peak, end.Now)
		}
	}
}

// table prints a column for each contender.
func (r *run) table(w io.Writer, title string, cell func(name, method string, callers int) string) {
	fmt.Fprintf(w, "\n%s\n%20s", title, "")
	for _, name := range r.names {
		fmt.Fprintf(w, "  %18s", name)
	}
	fmt.Fprintln(w)
	for _, method := range methods {
		for _, callers := range levels {
			fmt.Fprintf(w, "%s %4d callers", method, callers)
			for _, name := range r.names {
				fmt.Fprintf(w, "  %18s", cell(name, method, callers))
			}
			fmt.Fprintln(w)
		}
	}
}

func shortFloat(f float64) string { return short(time.Duration(f)) }

// short formats a duration with three digits.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < 100*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

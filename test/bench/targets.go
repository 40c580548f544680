// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// judge prints each target and whether this run met it, as the table that
// docs/performance.md shows.
func (r *run) judge(w io.Writer) {
	fmt.Fprintf(w, "\n| %-60s | %-14s | %9s | %-7s |\n|%s|%s|%s:|%s|\n", "", "target", "this run", "",
		strings.Repeat("-", 62), strings.Repeat("-", 16), strings.Repeat("-", 10), strings.Repeat("-", 9))
	verdict := func(what, target, got string, met bool) {
		word := "met"
		if !met {
			word = "not met"
		}
		fmt.Fprintf(w, "| %-60s | %-14s | %9s | %-7s |\n", what, target, got, word)
	}
	atMost := func(what string, got, limit float64) {
		verdict(what, fmt.Sprintf("at most %.2f", limit), fmt.Sprintf("%.2f", got), got <= limit)
	}
	atLeast := func(what string, got, limit float64) {
		verdict(what, fmt.Sprintf("at least %.2f", limit), fmt.Sprintf("%.2f", got), got >= limit)
	}
	for _, method := range methods {
		atLeast(fmt.Sprintf("%s calls/s / direct, %d callers", method, crowd), r.results.over(rate, through, directly, method, crowd), 2.5)
		atMost(fmt.Sprintf("%s p99 / direct, %d callers", method, crowd), r.results.over(p99, through, directly, method, crowd), 1)
		atMost(method+" p50 / direct, 16 callers", r.results.over(p50, through, directly, method, 16), 1)
		atMost(method+" p50 / (direct + Status), 1 caller", r.results.overFloor(through, method, 1), 1.42)
		if slices.Contains(r.names, before) {
			atMost(method+" p50 / before, 1 caller", r.results.over(p50, through, before, method, 1), noise)
		}
	}
	atMost(fmt.Sprintf("Vault's CPU time per Decrypt / direct, %d callers", crowd), r.results.over(vaultCPU, through, directly, "Decrypt", crowd), 0.3)
	atMost("cold start, time / direct", 1/r.cold.faster(through), 0.4)
	cold := r.cold.of[through]
	verdict("cold start, calls to Vault", "at most 1000", fmt.Sprintf("%.0f", cold.vaultCalls), cold.vaultCalls <= 1000)
	verdict("cold start, failed requests", "none", strconv.Itoa(cold.failed), cold.failed == 0)
	atMost("longest wait of an Encrypt beside a storm / time of a batch", r.waited, 2)
	for _, at := range []struct {
		what string
		peak float64
	}{
		{fmt.Sprintf("resident memory at its peak, up to %d callers", mostCallers), r.called[through].Peak},
		{"resident memory at its peak, cold starts included", r.stormed[through].Peak},
	} {
		verdict(at.what, "at most 48 MiB", fmt.Sprintf("%.1f MiB", at.peak), at.peak <= 48)
	}
	atLeast("storm of few seeds, direct time / time", r.storm.faster(through), 10)
	status := time.Duration(p50.middle(r.results.of(through, "Status", 1)))
	verdict("Status p50, 1 caller", "at most 150µs", short(status), status <= 150*time.Microsecond)
}

// noise is by how much one binary differs from itself in a run.
const noise = 1.03

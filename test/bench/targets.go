// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// judge prints each target and whether this run met it.
func (r *run) judge(w io.Writer) {
	fmt.Fprintf(w, "\n%-66s %10s\n", "target", "this run")
	verdict := func(what string, got float64, format string, met bool) {
		word := "met"
		if !met {
			word = "not met"
		}
		fmt.Fprintf(w, "%-66s %10s  %s\n", what, fmt.Sprintf(format, got), word)
	}
	atMost := func(what string, got, limit float64) {
		verdict(fmt.Sprintf("%s: at most %.2f", what, limit), got, "%.2f", got <= limit)
	}
	for _, method := range methods {
		got := r.results.over(rate, through, directly, method, crowd)
		verdict(fmt.Sprintf("%s calls/s / direct, %d callers: at least 2.50", method, crowd), got, "%.2f", got >= 2.5)
		atMost(fmt.Sprintf("%s p99 / direct, %d callers", method, crowd), r.results.over(p99, through, directly, method, crowd), 1)
		atMost(method+" p50 / direct, 16 callers", r.results.over(p50, through, directly, method, 16), 1)
		atMost(method+" p50 / (direct + Status), 1 caller", r.results.overFloor(through, method, 1), 1.42)
		if slices.Contains(r.names, before) {
			atMost(method+" p50 / before, 1 caller", r.results.over(p50, through, before, method, 1), noise)
		}
	}
	atMost(fmt.Sprintf("Vault's CPU time per Decrypt / direct, %d callers", crowd), r.results.over(vaultCPU, through, directly, "Decrypt", crowd), 0.3)
	atMost("cold start, time / direct", 1/r.cold.faster(through), 0.4)
	calls := r.cold.of[through].vaultCalls
	verdict("cold start, calls to Vault: at most 1000", calls, "%.0f", calls <= 1000)
	atMost("longest wait of an Encrypt beside a storm / time of a batch", r.waited, 2)
	peak := r.memory[through].peak
	verdict("resident memory at its peak: at most 48 MiB", peak, "%.1f MiB", peak <= 48)
	faster := r.storm.faster(through)
	verdict("storm of few seeds: at least 10 times faster than direct", faster, "%.1f", faster >= 10)
	status := time.Duration(p50.middle(r.results.of(through, "Status", 1)))
	verdict("Status p50, 1 caller: at most 150µs", float64(status.Microseconds()), "%.0fµs", status <= 150*time.Microsecond)
}

// noise is by how much one binary differs from itself in a run.
const noise = 1.03

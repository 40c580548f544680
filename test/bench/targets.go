// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"
)

// judge prints each target and whether this run met it.
func judge(w io.Writer, r results, s storms, peak float64) {
	fmt.Fprintf(w, "\n%-58s %10s\n", "target", "this run")
	verdict := func(what string, got float64, format string, met bool) {
		word := "met"
		if !met {
			word = "not met"
		}
		fmt.Fprintf(w, "%-58s %10s  %s\n", what, fmt.Sprintf(format, got), word)
	}
	for _, method := range methods {
		for _, callers := range []int{1, 16} {
			got := r.overFloor(method, callers)
			verdict(fmt.Sprintf("%s p50, %d callers: at most 1.15 F", method, callers), got, "%.2f F", got <= 1.15)
		}
		for _, callers := range []int{16, mostCallers} {
			got := r.throughput(method, callers)
			verdict(fmt.Sprintf("%s calls/s, %d callers: at least 0.85 of direct", method, callers), got, "%.2f", got >= 0.85)
			got = r.tail(method, callers)
			verdict(fmt.Sprintf("%s p99, %d callers: at most 1.3 times direct", method, callers), got, "%.2f", got <= 1.3)
		}
	}
	status := middle(r.of(through, "Status", 1)).p50
	verdict("Status p50, 1 caller: at most 150µs", float64(status)/float64(time.Microsecond), "%.0fµs", status <= 150*time.Microsecond)
	faster := float64(s.direct) / float64(s.through)
	verdict("storm of Decrypts: at least 10 times faster than direct", faster, "%.1f", faster >= 10)
	verdict("resident memory at its peak, 128 callers: at most 40 MiB", peak, "%.1f MiB", peak <= 40)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"
)

// middle returns the median round, separately for each figure.
func middle(samples []sample) sample {
	var p50, p99 []time.Duration
	var rate []float64
	for _, s := range samples {
		p50, p99, rate = append(p50, s.p50), append(p99, s.p99), append(rate, s.rate)
	}
	return sample{p50: median(p50), p99: median(p99), rate: median(rate)}
}

// ratio returns the median of the ratios within each round. Load that slows a whole
// round does not affect it.
func ratio(rounds int, of func(round int) float64) float64 {
	var ratios []float64
	for round := range rounds {
		ratios = append(ratios, of(round))
	}
	return median(ratios)
}

// overFloor returns the p50 through trousseau divided by the floor: the p50 of a
// direct call plus that of an RPC that does not call Vault.
func (r results) overFloor(method string, callers int) float64 {
	t, d, s := r.of(through, method, callers), r.of(directly, method, callers), r.of(through, "Status", callers)
	return ratio(len(t), func(i int) float64 { return float64(t[i].p50) / float64(d[i].p50+s[i].p50) })
}

func (r results) throughput(method string, callers int) float64 {
	t, d := r.of(through, method, callers), r.of(directly, method, callers)
	return ratio(len(t), func(i int) float64 { return t[i].rate / d[i].rate })
}

func (r results) tail(method string, callers int) float64 {
	t, d := r.of(through, method, callers), r.of(directly, method, callers)
	return ratio(len(t), func(i int) float64 { return float64(t[i].p99) / float64(d[i].p99) })
}

func (r results) print(w io.Writer) {
	fmt.Fprintf(w, "\n%16s  %-26s  %-26s  %s\n", "", "direct", "trousseau", "trousseau / direct")
	fmt.Fprintf(w, "%-8s%8s  %8s %8s %8s  %8s %8s %8s  %7s %6s %7s\n", "", "callers",
		"p50", "p99", "calls/s", "p50", "p99", "calls/s", "p50/F", "p99", "calls/s")
	for _, method := range methods {
		for _, callers := range levels {
			d, t := middle(r.of(directly, method, callers)), middle(r.of(through, method, callers))
			fmt.Fprintf(w, "%-8s%8d  %s  %s  %7.2f %6.2f %7.2f\n", method, callers, d, t,
				r.overFloor(method, callers), r.tail(method, callers), r.throughput(method, callers))
		}
	}
	for _, callers := range levels {
		fmt.Fprintf(w, "%-8s%8d  %26s  %s\n", "Status", callers, "", middle(r.of(through, "Status", callers)))
	}
	fmt.Fprintln(w, "F is direct p50 + Status p50. Each figure is the median of all rounds; a ratio is the median of the ratios within each round.")
}

func (s sample) String() string {
	return fmt.Sprintf("%8s %8s %8.0f", short(s.p50), short(s.p99), s.rate)
}

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

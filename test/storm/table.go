// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// print writes the table that docs/performance.md shows.
func (s *stage) print(w io.Writer, outcomes []outcome) error {
	processes := 0
	for _, o := range outcomes {
		processes = max(processes, o.processes)
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s; %d CPUs, load %s; %d seeds per plugin, %d plugins per cluster\n", s.vault.reach().what, runtime.NumCPU(),
		strings.Join(strings.Fields(string(load))[:3], " "), s.seeds, perCluster)
	fmt.Fprintf(w, "at most %d plugins were processes of their own, the largest of %.0f MiB\n\n", processes, s.peak)
	fmt.Fprintln(w, "| clusters | at once | Vault | plugins | Status ok, slowest | ready, median | ready, slowest | Vault calls | per seed | Vault's CPU | per seed | plugins' CPU | callers' CPU | failed Status | failed Decrypt | not ready |")
	fmt.Fprintln(w, "|--:|--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	var direct outcome
	for _, o := range outcomes {
		if o.direct {
			direct = o
		}
		seeds := o.clusters * perCluster * s.seeds
		fmt.Fprintf(w, "| %d | %d | %s | %s | %s | %s | %s | %s | %.2f | %s | %d µs | %s | %s | %d | %d | %d |\n", o.clusters, o.atOnce, o.vault, o.who(),
			seconds(last(o.proven)), seconds(middle(o.ready)), o.against(direct, float64(last(o.ready)), float64(last(direct.ready)), seconds(last(o.ready))),
			o.against(direct, float64(o.calls), float64(direct.calls), fmt.Sprint(o.calls)), float64(o.calls)/float64(seeds),
			o.against(direct, float64(o.vaultCPU), float64(direct.vaultCPU), seconds(o.vaultCPU)), o.vaultCPU.Microseconds()/int64(seeds),
			seconds(o.pluginCPU), seconds(o.ownCPU), o.failedStatus, o.failedDecrypts, o.notReady)
	}
	fmt.Fprintln(w, "\nIn brackets: divided by the figure of one call per seed, in the same storm.")
	return nil
}

// against adds the ratio to the figure of direct calls in the same storm.
func (o outcome) against(direct outcome, figure, base float64, shown string) string {
	if o.direct || base == 0 || direct.clusters != o.clusters || direct.atOnce != o.atOnce || direct.vault != o.vault {
		return shown
	}
	return fmt.Sprintf("%s (%.2f)", shown, figure/base)
}

func last(times []time.Duration) time.Duration { return slices.Max(times) }

func middle(times []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(times))[len(times)/2]
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

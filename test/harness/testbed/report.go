// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// Row is the result of one scenario.
type Row struct {
	Scenario   string
	Operations int
	Failures   int
	Took       time.Duration
	Observed   []string
	Failed     bool
	Skipped    bool // the servers lack something
}

// Report collects the rows of all scenarios. The zero value is ready for use; it is
// safe for concurrent use.
type Report struct {
	mu   sync.Mutex
	rows []Row
}

func (r *Report) add(row Row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, row)
}

// Print writes the table, ordered by scenario. It writes nothing if no scenario has
// run.
func (r *Report) Print(w io.Writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rows) == 0 {
		return
	}
	rows := slices.Clone(r.rows)
	slices.SortStableFunc(rows, func(a, b Row) int { return number(a.Scenario) - number(b.Scenario) })

	const form = "%-2s %-34s %8s %10s %9s  %s\n"
	fmt.Fprintf(w, "\n"+form, "", "scenario", "seconds", "operations", "failures", "observed")
	for _, row := range rows {
		observed := row.Observed
		if len(observed) == 0 {
			observed = []string{""}
		}
		operations, failures := "", ""
		if row.Operations > 0 {
			operations, failures = fmt.Sprint(row.Operations), fmt.Sprint(row.Failures)
		}
		mark := "✓"
		switch {
		case row.Failed:
			mark = "✗"
		case row.Skipped:
			mark = "-"
		}
		fmt.Fprintf(w, form, mark, row.Scenario, fmt.Sprintf("%.1f", row.Took.Seconds()),
			operations, failures, observed[0])
		for _, fact := range observed[1:] {
			fmt.Fprintf(w, "%s%s\n", strings.Repeat(" ", 68), fact)
		}
	}
	fmt.Fprintln(w)
}

// number returns the number in a scenario's title, or 0 if there is none.
func number(title string) int {
	n := 0
	// For a title without a number, n stays 0.
	_, _ = fmt.Sscanf(title, "%d", &n)
	return n
}

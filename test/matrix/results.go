// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// scenario is one row of the matrix: a test that also runs in `make e2e`.
type scenario struct{ name, test string }

// core are the scenarios that every combination of servers must pass.
var core = []scenario{
	{"set-up", "TestSetUpAsDocumented"},
	{"monthly rotation", "TestMonthlyTokenRotation"},
	{"key rotation", "TestKeyRotation"},
	{"outage", "TestVaultOutageOfEachKind"},
	{"cold start", "TestColdStartOfEverything"},
	{"reencrypt", "TestReencryptWithEtcd"},
	{"rotate-key", "TestRotateKey"},
	{"audit", "TestAuditOfACluster"},
}

// results is the file results.json.
type results struct {
	Columns []column `json:"columns"`
}

// column is one combination of servers. Versions are what the programs say of themselves.
type column struct {
	Kubernetes string `json:"kubernetes"` // such as 1.37.2
	Product    string `json:"product"`    // Vault or OpenBao
	Version    string `json:"version"`    // of the product
	Etcd       string `json:"etcd"`
	Go         string `json:"go"`     // built the servers, Trousseau and the tests
	Commit     string `json:"commit"` // of Trousseau
	Date       string `json:"date"`
	// Scenarios has an entry for each of core, by its name.
	Scenarios map[string]result `json:"scenarios"`
}

// result is how a scenario ended.
type result struct {
	Result  string  `json:"result"` // pass, fail, skip, or none if the test has not run to its end
	Seconds float64 `json:"seconds"`
	Reason  string  `json:"reason,omitempty"` // unless it passed
}

const (
	pass = "pass"
	fail = "fail"
	skip = "skip"
	none = "none"
)

// minor shortens a version to its first two numbers.
func minor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// title names the column; equal titles are the same column.
func (c column) title() string {
	return minor(c.Kubernetes) + ", " + c.Product + " " + minor(c.Version)
}

// failed reports whether a scenario neither passed nor was skipped.
func (c column) failed() bool {
	return slices.ContainsFunc(core, func(s scenario) bool {
		got := c.Scenarios[s.name].Result
		return got != pass && got != skip
	})
}

// load reads results.json, which need not exist.
func load(path string) (r results, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

func (r results) save(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}

// merge replaces the column of the same title, or adds it.
func (r *results) merge(c column) {
	r.Columns = slices.DeleteFunc(r.Columns, func(old column) bool { return old.title() == c.title() })
	r.Columns = append(r.Columns, c)
	slices.SortFunc(r.Columns, func(a, b column) int {
		return cmp.Or(-strings.Compare(a.Product, b.Product), -byNumber(a.Kubernetes, b.Kubernetes), -byNumber(a.Version, b.Version))
	})
}

// byNumber compares versions, number by number.
func byNumber(a, b string) int {
	numbers := func(version string) (all []int) {
		for part := range strings.SplitSeq(version, ".") {
			n := 0
			// A part that is no number counts as 0.
			_, _ = fmt.Sscanf(part, "%d", &n)
			all = append(all, n)
		}
		return all
	}
	return slices.Compare(numbers(a), numbers(b))
}

// table prints scenarios by columns: the seconds of those that passed, and below it
// why the others have not.
func (r results) table(w io.Writer) {
	rows := [][]string{{"Kubernetes"}, {"Vault or OpenBao"}, {"Go"}, {"date"}}
	for _, s := range core {
		rows = append(rows, []string{s.name})
	}
	rows = append(rows, []string{"minutes in all"})
	var notes []string
	for _, c := range r.Columns {
		total := 0.0
		rows[0] = append(rows[0], c.Kubernetes)
		rows[1] = append(rows[1], c.Product+" "+c.Version)
		rows[2] = append(rows[2], strings.TrimPrefix(c.Go, "go"))
		rows[3] = append(rows[3], c.Date)
		for i, s := range core {
			got := c.Scenarios[s.name]
			total += got.Seconds
			rows[4+i] = append(rows[4+i], got.cell())
			if got.Result != pass {
				notes = append(notes, fmt.Sprintf("%s, %s: %s: %s", c.title(), s.name, got.Result, got.Reason))
			}
		}
		rows[len(rows)-1] = append(rows[len(rows)-1], fmt.Sprintf("%.1f", total/60))
	}
	widths := make([]int, len(r.Columns)+1)
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			if i == 0 {
				fmt.Fprintf(w, "%-*s", widths[i], cell)
				continue
			}
			fmt.Fprintf(w, "  %*s", widths[i], cell)
		}
		fmt.Fprintln(w)
	}
	for _, note := range notes {
		fmt.Fprintln(w, note)
	}
}

func (r result) cell() string {
	if r.Result == pass {
		return fmt.Sprintf("%.0f s", r.Seconds)
	}
	return strings.ToUpper(r.Result)
}

// The table in the page is between these lines.
const (
	begin = "<!-- matrix: written by `make matrix` from test/matrix/results.json -->\n"
	end   = "<!-- /matrix -->\n"
)

// page returns the text of docs/compatibility.md with the table of these results.
func (r results) page(text string) (string, error) {
	before, rest, found := strings.Cut(text, begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return "", fmt.Errorf("the lines %q and %q are not in it", begin, end)
	}
	var b strings.Builder
	b.WriteString(before + begin + "\n| Kubernetes | Vault or OpenBao | etcd | Go | Run on |")
	for _, s := range core {
		b.WriteString(" " + s.name + " |")
	}
	b.WriteString("\n|---|---|---|---|---|" + strings.Repeat("---|", len(core)) + "\n")
	var notes []string
	for _, c := range r.Columns {
		fmt.Fprintf(&b, "| %s | %s %s | %s | %s | %s |", c.Kubernetes, c.Product, c.Version, c.Etcd, strings.TrimPrefix(c.Go, "go"), c.Date)
		for _, s := range core {
			got := c.Scenarios[s.name]
			fmt.Fprintf(&b, " %s |", got.cell())
			if got.Result != pass {
				notes = append(notes, fmt.Sprintf("- %s, %s: %s: %s\n", c.title(), s.name, got.Result, got.Reason))
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	if len(notes) > 0 {
		b.WriteString(strings.Join(notes, "") + "\n")
	}
	b.WriteString(end + after)
	return b.String(), nil
}

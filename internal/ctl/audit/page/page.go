// SPDX-License-Identifier: Apache-2.0

// Package page writes an audit as one self-contained HTML file for an auditor, with
// styles and charts inside and without any script.
package page

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

//go:embed page.html
var source string

// Options say what the page shows besides the report.
type Options struct {
	// Title names the cluster; "" means the source of the report.
	Title   string
	Version string // of the program
}

// Write writes the page for r. Everything in r is escaped.
func Write(w io.Writer, r audit.Report, o Options) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"number": text.Number,
		"join":   join,
		"date":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"day":    func(t *time.Time) string { return t.UTC().Format("2006-01-02") },
	}).Parse(source)
	if err != nil {
		return err
	}
	return t.Execute(w, struct {
		audit.Report
		Title    string
		Version  string
		Prefixes string
		Verdict  kind
		Problems []problem
		Legend   []kind
		Storage  []bar
		Rows     []audit.Resource
		Plain    *plainTypes
		KeyBars  []bar
		DrillBar *bar
	}{
		r, cmp.Or(o.Title, join(r.Source.Names)), o.Version, join(r.Source.Prefixes), verdict(r), problems(r),
		legend(r), storage(r), rows(r), plainResources(r), keyBars(r), drillBar(r),
	})
}

func join(texts []string) string { return strings.Join(texts, ", ") }

// problem is a finding on the page.
type problem struct {
	Text, Do string
	Warning  bool
	Examples []string
	More     int // objects besides the examples
}

func problems(r audit.Report) (all []problem) {
	for _, f := range r.Findings {
		all = append(all, problem{
			Text: text.Capital(f.Text), Do: text.Capital(f.Do), Warning: f.Severity == finding.Warning,
			Examples: f.Examples, More: max(0, f.Objects-len(f.Examples)),
		})
	}
	return all
}

// verdict is the result in words; its class gives it a color and a shape.
func verdict(r audit.Report) kind {
	switch n := len(r.Findings); {
	case finding.Problem(r.Findings):
		return kind{"bad", text.Count(n, "finding")}
	case n > 0:
		return kind{"doubtful", text.Count(n, "warning")}
	}
	return kind{"good", "No findings"}
}

// rows are what the table of resources shows: what is meant to be encrypted, and what
// is encrypted outside of the prefixes.
func rows(r audit.Report) (all []audit.Resource) {
	for _, res := range r.Resources {
		if res.Encrypted {
			all = append(all, res)
		}
	}
	return append(all, r.Outside...)
}

// plainTypes are the resources that are not encrypted, and need not be.
type plainTypes struct {
	Text      string
	Resources []audit.Resource
}

func plainResources(r audit.Report) *plainTypes {
	var p plainTypes
	objects := 0
	for _, res := range r.Resources {
		if !res.Encrypted && res.Objects > 0 {
			p.Resources = append(p.Resources, res)
			objects += res.Objects
		}
	}
	if objects == 0 {
		return nil
	}
	p.Text = fmt.Sprintf("Not encrypted, and not expected to be: %s of %s", text.Count(objects, "object"), text.Count(len(p.Resources), "resource"))
	return &p
}

// SPDX-License-Identifier: Apache-2.0

// Package page writes an audit as one self-contained HTML file for an auditor, with
// styles and charts inside and without any script.
package page

import (
	_ "embed"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

//go:embed page.html
var source string

// Write writes the page for r. Version is that of the program. Everything in r is
// escaped.
func Write(w io.Writer, r audit.Report, version string) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"number": text.Number,
		"join":   func(texts []string) string { return strings.Join(texts, ", ") },
		"date":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"day":    func(t *time.Time) string { return t.UTC().Format("2006-01-02") },
	}).Parse(source)
	if err != nil {
		return err
	}
	return t.Execute(w, struct {
		audit.Report
		Version  string
		Legend   []kind
		Storage  []bar
		KeyBars  []bar
		DrillBar *bar
	}{r, version, legend(r), storage(r), keyBars(r), drillBar(r)})
}

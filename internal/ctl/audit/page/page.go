// SPDX-License-Identifier: Apache-2.0

// Package page writes an audit as one HTML file that needs nothing else: styles
// and charts are in it, and there is no script. It is what an auditor is given.
package page

import (
	_ "embed"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
)

//go:embed page.html
var text string

// Write writes the page for r, made by the given version of the program. What is
// in r is shown as text, whatever it holds.
func Write(w io.Writer, r audit.Report, version string) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"number": number,
		"join":   func(texts []string) string { return strings.Join(texts, ", ") },
		"date":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"day":    func(t *time.Time) string { return t.UTC().Format("2006-01-02") },
	}).Parse(text)
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

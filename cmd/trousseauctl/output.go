// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// output is how a command prints its result.
type output struct {
	kind    string // of its document, such as Audit
	formats []string
	format  string
	written bool
}

// outputFlag adds --output to a command: table, json, yaml, and what more it has.
func outputFlag(cmd *cobra.Command, kind string, more ...string) *output {
	formats := append([]string{"table", "json", "yaml"}, more...)
	o := &output{kind: kind, formats: formats, format: formats[0]}
	last := len(formats) - 1
	cmd.Flags().VarP(o, "output", "o", "output `format`: "+strings.Join(formats[:last], ", ")+" or "+formats[last])
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return o
}

func (o *output) String() string { return o.format }

func (o *output) Type() string { return "format" }

func (o *output) Set(s string) error {
	if !slices.Contains(o.formats, s) {
		return fmt.Errorf("want %s", strings.Join(o.formats, ", "))
	}
	o.format = s
	return nil
}

// table reports whether people read the output.
func (o *output) table() bool { return o.format == "table" }

// result is what a command has done or found.
type result struct {
	// Report is the command's own part of the document; nil if there is none.
	Report   any
	Findings []finding.Finding
	// Err is why the command failed. What it did until then is in Report.
	Err error
	// Cases are the checks, for a command with the format junit.
	Cases []testCase
}

// The verdicts. Each has one exit code, see newRoot.
const (
	verdictOK       = "ok"
	verdictFindings = "findings"
	verdictFailed   = "failed"
)

func (r result) verdict() string {
	switch {
	case r.Err != nil && !errors.Is(r.Err, errFinding):
		return verdictFailed
	case r.Err != nil || finding.Problem(r.Findings):
		return verdictFindings
	}
	return verdictOK
}

// document is the result in JSON or YAML. docs/schema describes it.
type document struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Verdict    string            `json:"verdict"`
	Error      string            `json:"error,omitempty"`
	Findings   []finding.Finding `json:"findings"`
	Report     any               `json:"report,omitempty"`
}

// apiVersion is that of every document. A field that goes away or gets another meaning
// makes a new version; a new field does not.
const apiVersion = "trousseau.io/v1"

func (r result) document(kind string) document {
	d := document{APIVersion: apiVersion, Kind: kind, Verdict: r.verdict(), Findings: r.Findings, Report: r.Report}
	if d.Findings == nil {
		d.Findings = []finding.Finding{}
	}
	if d.Verdict == verdictFailed {
		d.Error = r.Err.Error()
	}
	return d
}

// write prints r: as a document, or by table, laid out for the output, with colors if
// it is a terminal. It returns r.Err, or errFinding if a finding is an error.
func (o *output) write(cmd *cobra.Command, r result, table func(io.Writer, painter) error) error {
	w := cmd.OutOrStdout()
	o.written = true
	var err error
	switch o.format {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(r.document(o.kind))
	case "yaml":
		var document []byte
		if document, err = yaml.Marshal(r.document(o.kind)); err == nil {
			_, err = w.Write(document)
		}
	case "table":
		var b strings.Builder
		if err = table(&b, painterFor(w)); err == nil {
			_, err = io.WriteString(w, text.Fit(b.String(), columns(w)))
		}
	case "junit":
		failure := r.Err
		if errors.Is(failure, errFinding) {
			failure = nil
		}
		err = writeJUnit(w, o.kind, r.Cases, failure)
	default:
		err = table(w, painterFor(w))
	}
	switch {
	case err != nil:
		return errors.Join(r.Err, err)
	case r.verdict() == verdictFindings:
		return errFinding
	}
	return r.Err
}

// writeFailure prints the document of a command that failed before it had a result. A
// person reads the error on stderr.
func writeFailure(cmd *cobra.Command, failure error) {
	flag := cmd.Flags().Lookup("output")
	if flag == nil {
		return
	}
	if o, ok := flag.Value.(*output); ok && !o.written {
		// The failure itself is the exit code, whatever becomes of this output.
		_ = o.write(cmd, result{Err: failure}, nothing)
	}
}

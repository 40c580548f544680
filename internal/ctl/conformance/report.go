// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// Result is the result of a check.
type Result string

const (
	// Pass means that the plugin follows the rule.
	Pass Result = "pass"
	// Fail means that it breaks a rule of level Must.
	Fail Result = "fail"
	// Warn means that it breaks a rule of level Should.
	Warn Result = "warn"
	// Skip means that the check did not run because one that it needs does not pass,
	// or that the rule does not apply.
	Skip Result = "skip"
)

// Checked is a check and its result. The result of a check that was only listed is "".
type Checked struct {
	Check
	Result Result `json:"result,omitempty"`
	// Detail is what was seen.
	Detail string `json:"detail,omitempty"`
	// Advice is what to do; "" after Pass and Skip.
	Advice  string  `json:"advice,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

// Report is the result of all selected checks.
type Report struct {
	Endpoint string `json:"endpoint,omitempty"`
	// Timeout is the time limit for one call, in the format of time.Duration.
	Timeout string `json:"timeout,omitempty"`
	Passed  int    `json:"passed"`
	Failed  int    `json:"failed"`
	Warned  int    `json:"warned"`
	Skipped int    `json:"skipped"`
	// Checks are in the order in which they ran.
	Checks []Checked `json:"checks"`
	// Findings are the checks that do not pass, by their names. A check of level Must
	// that was skipped is an error: the plugin is not known to be conformant.
	Findings []finding.Finding `json:"-"`
}

func (r *Report) add(c Check, o outcome, took time.Duration) {
	if o.result == Fail && c.Level == Should {
		o.result = Warn
	}
	r.Checks = append(r.Checks, Checked{c, o.result, o.detail, o.advice, took.Seconds()})
	severity := finding.Error
	switch o.result {
	case Pass:
		r.Passed++
		return
	case Fail:
		r.Failed++
	case Warn:
		r.Warned++
		severity = finding.Warning
	case Skip:
		r.Skipped++
		if c.Level == Should {
			return
		}
	}
	r.Findings = append(r.Findings, finding.Finding{ID: c.Name, Severity: severity, Subject: r.Endpoint, Text: c.Rule + " Seen: " + o.detail, Do: o.advice})
}

// outcome is the result of a check, before its level is considered.
type outcome struct {
	result Result // Pass, Fail or Skip
	detail string
	advice string
}

// pass means that the plugin follows the rule.
func pass(format string, args ...any) outcome {
	return outcome{result: Pass, detail: fmt.Sprintf(format, args...)}
}

// broken means that the plugin breaks the rule: what to do, and what was seen. The
// default advice is to read the plugin's log.
func broken(advice, format string, args ...any) outcome {
	return outcome{result: Fail, detail: fmt.Sprintf(format, args...), advice: cmp.Or(advice, "Read the plugin's log.")}
}

// skip means that the rule was not checked, or does not apply.
func skip(format string, args ...any) outcome {
	return outcome{result: Skip, detail: fmt.Sprintf(format, args...)}
}

// said returns a plugin's error, for a detail.
func said(err error) string {
	st := status.Convert(err)
	if st.Message() == "" {
		return st.Code().String()
	}
	return fmt.Sprintf("%s: %s", st.Code(), shortened(st.Message()))
}

// shortened shortens a text of the plugin to a line or two, and replaces what does not
// print.
func shortened(s string) string {
	const longest = 160
	s = strings.Join(strings.Fields(text.Printable(s)), " ")
	if runes := []rune(s); len(runes) > longest {
		return string(runes[:longest]) + "…"
	}
	return s
}

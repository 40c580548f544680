// SPDX-License-Identifier: Apache-2.0

package doctor

import "github.com/trousseau-io/trousseau/internal/ctl/finding"

// Result is the outcome of a check.
type Result string

const (
	// OK means that the check passed.
	OK Result = "ok"
	// Warn means that it works, but is a risk.
	Warn Result = "warn"
	// Fail means that it keeps Trousseau from working, now or soon.
	Fail Result = "fail"
	// Skip means that it was not checked: it does not apply, its answer is unknown, or
	// something that it depends on failed.
	Skip Result = "skip"
)

// Check is a check and its result.
type Check struct {
	// Name is stable across versions, and the id of its finding.
	Name string `json:"check"`
	// Subject says which of several things was checked: an address, a path, a key.
	Subject string `json:"subject,omitempty"`
	Result  Result `json:"result"`
	// Seen is what the check saw, or why it was skipped. It never holds a secret.
	Seen string `json:"seen"`
	// Fix says what to do; empty unless Result is Warn or Fail.
	Fix string `json:"fix,omitempty"`
}

// Report is what [Run] has checked.
type Report struct {
	OK      int `json:"ok"`
	Warned  int `json:"warned"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
	// Checks are in order: each after those that it depends on.
	Checks []Check `json:"checks"`
	// Findings are the checks that failed or warn.
	Findings []finding.Finding `json:"-"`
}

func report(checks []Check) Report {
	r := Report{Checks: checks}
	for _, c := range checks {
		severity := finding.Warning
		switch c.Result {
		case OK:
			r.OK++
			continue
		case Skip:
			r.Skipped++
			continue
		case Warn:
			r.Warned++
		case Fail:
			r.Failed++
			severity = finding.Error
		}
		r.Findings = append(r.Findings, finding.Finding{ID: c.Name, Severity: severity, Subject: c.Subject, Text: c.Seen, Do: c.Fix})
	}
	return r
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import "time"

// Result is what became of a check.
type Result string

const (
	// Pass is for a rule that is kept.
	Pass Result = "pass"
	// Fail is for a rule of level Must that is not.
	Fail Result = "fail"
	// Warn is for a rule of level Should that is not.
	Warn Result = "warn"
	// Skip is for a rule that cannot be judged because another one is not kept,
	// or that does not apply.
	Skip Result = "skip"
)

// Finding is a check and what became of it.
type Finding struct {
	Check
	Result Result `json:"result"`
	// Detail is what was seen.
	Detail string `json:"detail"`
	// Advice is what to do; empty if the rule is kept or was not judged.
	Advice  string  `json:"advice,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Report is what became of all checks that were made.
type Report struct {
	Endpoint string `json:"endpoint"`
	// Timeout is how long a call could take, as time.Duration writes it.
	Timeout string `json:"timeout"`
	// Conformant is false if a check of level Must failed or could not be
	// judged.
	Conformant bool `json:"conformant"`
	Passed     int  `json:"passed"`
	Failed     int  `json:"failed"`
	Warned     int  `json:"warned"`
	Skipped    int  `json:"skipped"`
	// Findings are in the order of the checks.
	Findings []Finding `json:"checks"`
}

func (r *Report) add(c Check, o outcome, took time.Duration) {
	f := Finding{Check: c, Result: o.result, Detail: o.detail, Advice: o.advice, Seconds: took.Seconds()}
	if f.Result == Fail && c.Level == Should {
		f.Result = Warn
	}
	switch f.Result {
	case Pass:
		r.Passed++
	case Warn:
		r.Warned++
	case Fail:
		r.Failed++
	case Skip:
		r.Skipped++
	}
	if c.Level == Must && f.Result != Pass {
		r.Conformant = false
	}
	r.Findings = append(r.Findings, f)
}

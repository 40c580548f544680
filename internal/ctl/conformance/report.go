// SPDX-License-Identifier: Apache-2.0

package conformance

import "time"

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

// Finding is a check and its result.
type Finding struct {
	Check
	Result Result `json:"result"`
	// Detail is what was seen.
	Detail string `json:"detail"`
	// Advice is what to do; "" after Pass and Skip.
	Advice  string  `json:"advice,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Report is the result of all selected checks.
type Report struct {
	Endpoint string `json:"endpoint"`
	// Timeout is the time limit for one call, in the format of time.Duration.
	Timeout string `json:"timeout"`
	// Conformant is false if a check of level Must has failed or was skipped.
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

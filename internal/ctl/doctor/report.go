// SPDX-License-Identifier: Apache-2.0

package doctor

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

// Finding is a check and its result.
type Finding struct {
	// Check is its name, which is stable across versions.
	Check string `json:"check"`
	// Subject says which of several things was checked: an address, a path, a key.
	Subject string `json:"subject,omitempty"`
	Result  Result `json:"result"`
	// Seen is what the check saw, or why it was skipped. It never holds a secret.
	Seen string `json:"seen"`
	// Fix says what to do; empty unless Result is Warn or Fail.
	Fix string `json:"fix,omitempty"`
}

// Report is what [Run] has found.
type Report struct {
	// Healthy is false if any check failed.
	Healthy bool `json:"healthy"`
	OK      int  `json:"ok"`
	Warned  int  `json:"warned"`
	Failed  int  `json:"failed"`
	Skipped int  `json:"skipped"`
	// Findings are in the order of the checks: each after those that it depends on.
	Findings []Finding `json:"findings"`
}

func (e *examination) report() Report {
	r := Report{Findings: e.findings}
	for _, f := range r.Findings {
		switch f.Result {
		case OK:
			r.OK++
		case Warn:
			r.Warned++
		case Fail:
			r.Failed++
		case Skip:
			r.Skipped++
		}
	}
	r.Healthy = r.Failed == 0
	return r
}

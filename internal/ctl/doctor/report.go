// SPDX-License-Identifier: Apache-2.0

package doctor

// Result is what became of a check.
type Result string

const (
	// OK is for what is as it should be.
	OK Result = "ok"
	// Warn is for what works, and is a risk.
	Warn Result = "warn"
	// Fail is for what keeps Trousseau from working, now or soon.
	Fail Result = "fail"
	// Skip is for what could not be looked at, or was not asked for.
	Skip Result = "skip"
)

// Finding is a check and what became of it.
type Finding struct {
	// Check is the name, which stays as it is from version to version.
	Check string `json:"check"`
	// Subject is which one of several was looked at: an address, a path, a key.
	Subject string `json:"subject,omitempty"`
	Result  Result `json:"result"`
	// Seen is what there was, or why it was not looked at. It never holds a
	// secret.
	Seen string `json:"seen"`
	// Fix is what to do about it; empty unless it is a Warn or a Fail.
	Fix string `json:"fix,omitempty"`
}

// Report is what an examination has found.
type Report struct {
	// Healthy is false if a check failed.
	Healthy bool `json:"healthy"`
	OK      int  `json:"ok"`
	Warned  int  `json:"warned"`
	Failed  int  `json:"failed"`
	Skipped int  `json:"skipped"`
	// Findings are in the order in which the checks depend on each other.
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

// SPDX-License-Identifier: Apache-2.0

// Package finding is the one shape in which every command reports what it found, so
// that a machine reads all of them alike.
package finding

import "slices"

// Severity says whether a finding needs action.
type Severity string

const (
	// Error is a problem: the verdict of the command is not ok.
	Error Severity = "error"
	// Warning is a risk. It does not change the verdict.
	Warning Severity = "warning"
)

// Finding is one problem or risk. It never holds a secret.
type Finding struct {
	// ID is in kebab-case, is the same in every version, and is unique within a
	// command.
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// Subject is what it is about, such as a node, an address or a resource.
	Subject string `json:"subject,omitempty"`
	// Text says what is wrong, and Do what to do.
	Text string `json:"text"`
	Do   string `json:"do,omitempty"`
	// Objects counts the objects of Kubernetes that it is about, and Examples are keys
	// of some of them.
	Objects  int      `json:"objects,omitempty"`
	Examples []string `json:"examples,omitempty"`
}

// Problem reports whether a finding is an Error.
func Problem(all []Finding) bool {
	return slices.ContainsFunc(all, func(f Finding) bool { return f.Severity == Error })
}

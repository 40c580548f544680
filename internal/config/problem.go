// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in the configuration. None of its fields ever holds a secret.
type Problem struct {
	// Field is the full name of the field, such as vault.token or vault.keynames[1]; empty when the file as a whole
	// is meant.
	Field string
	// Line is where the field stands in config.yaml, counted from 1, or where the section that lacks it begins; 0
	// when there is no such line.
	Line int
	// Text says what is wrong and what to do, and reads on from Field: "is empty; write a value or remove the line".
	Text string
}

// String returns the problem as "line 7: vault.token: is empty…", leaving out what does not apply.
func (p Problem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", p.Line)
	}
	if p.Field != "" {
		fmt.Fprintf(&b, "%s: ", p.Field)
	}
	b.WriteString(p.Text)
	return b.String()
}

// Error is why a configuration was refused.
type Error struct {
	// Problems are all mistakes found, sorted by line; never empty.
	Problems []Problem
}

// maxProblemsInText bounds the error text, because it goes to the log at each attempt. Problems has them all.
const maxProblemsInText = 20

// Error joins the problems with "; ". Of a long list only the first are spelled out.
func (e *Error) Error() string {
	var texts []string
	for _, p := range e.Problems[:min(len(e.Problems), maxProblemsInText)] {
		texts = append(texts, p.String())
	}
	if more := len(e.Problems) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

func newError(problems []Problem) *Error {
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return &Error{Problems: problems}
}

// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
)

// Problem is one mistake in the configuration. None of its fields ever holds a secret.
type Problem struct {
	// Field is the full name of the field, such as vault.token or vault.keynames[1]; empty for the file as a whole.
	Field string
	// Line is the line of the field in config.yaml, from 1, or that of the section that lacks it; 0 if there is none.
	Line int
	// Text says what is wrong and what to do, and reads on from Field: "is empty; write a value or remove the line".
	Text string
}

// String returns the problem as "line 7: vault.token: is empty…", leaving out what does not apply.
func (p Problem) String() string {
	text := p.Text
	if p.Field != "" {
		text = p.Field + ": " + text
	}
	if p.Line > 0 {
		text = fmt.Sprintf("line %d: %s", p.Line, text)
	}
	return text
}

// Error says why a configuration was refused.
type Error struct {
	// Problems are all mistakes found, sorted by line; never empty.
	Problems []Problem
}

// Error joins the first 20 problems with "; " and counts the rest, because each attempt logs the text.
func (e *Error) Error() string {
	var texts []string
	for _, p := range e.Problems[:min(len(e.Problems), 20)] {
		texts = append(texts, p.String())
	}
	if more := len(e.Problems) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

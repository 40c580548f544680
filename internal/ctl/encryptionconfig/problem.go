// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one mistake in a configuration. It never holds a key.
type Problem struct {
	// Line is where it is, from 1; 0 if it is the file as a whole.
	Line int
	// Field is the full name, such as resources[0].providers[1].kms.name; empty
	// if it is the file as a whole.
	Field string
	// Text says what is wrong and what to do, and reads on from Field.
	Text string
}

// String returns the problem on one line.
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

// InvalidError is a configuration that kube-apiserver would not take.
type InvalidError struct {
	// Problems are all that were found, by line; never empty.
	Problems []Problem
}

// Error has a line for each problem.
func (e *InvalidError) Error() string {
	texts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		texts[i] = p.String()
	}
	return strings.Join(texts, "\n")
}

func invalid(problems ...Problem) *InvalidError {
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return &InvalidError{Problems: problems}
}

// RefusedError is a change that would make something unreadable, or whose
// outcome is not plain.
type RefusedError struct {
	// Reason says which, and what to do instead.
	Reason string
}

func (e *RefusedError) Error() string { return e.Reason }

func refuse(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}

// OptionError is a mistake in an option.
type OptionError struct {
	// Option is the name of the field in Options, in lower case.
	Option string
	// Reason reads on from it.
	Reason string
}

func (e *OptionError) Error() string { return e.Option + ": " + e.Reason }

// path is where something is in a configuration: names of fields and indices.
type path []any

func (p path) field(name string) path { return append(slices.Clip(p), name) }
func (p path) index(i int) path       { return append(slices.Clip(p), i) }

func (p path) String() string {
	var b strings.Builder
	for _, step := range p {
		switch s := step.(type) {
		case int:
			b.WriteString("[" + strconv.Itoa(s) + "]")
		case string:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s)
		}
	}
	return b.String()
}

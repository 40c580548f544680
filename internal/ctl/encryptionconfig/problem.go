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
	// Line is its line, from 1; 0 for the file as a whole.
	Line int
	// Field is the full name, such as resources[0].providers[1].kms.name; "" for the
	// file as a whole.
	Field string
	// Text says what is wrong and what to do. It continues Field.
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

// InvalidError means that kube-apiserver would refuse the configuration.
type InvalidError struct {
	// Problems are all problems, by line; at least one.
	Problems []Problem
}

// Error returns one line for each problem.
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

// RefusedError means that the edit would make data unreadable, or that its result is
// uncertain.
type RefusedError struct {
	// Reason says why, and what to do instead.
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
	// Reason continues it.
	Reason string
}

func (e *OptionError) Error() string { return e.Option + ": " + e.Reason }

// path is a place in a configuration: names of fields and indices.
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

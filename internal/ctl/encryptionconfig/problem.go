// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	yamlnode "go.yaml.in/yaml/v3"
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

// problem is about a field, on its line if there are nodes to find it.
func problem(root *yamlnode.Node, field, format string, args ...any) Problem {
	p := Problem{Field: field, Text: fmt.Sprintf(format, args...)}
	if root != nil {
		_, p.Line = node(root, field)
	}
	return p
}

func invalid(problems ...Problem) *InvalidError {
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return &InvalidError{Problems: problems}
}

// RefusedError means that the edit would make data unreadable, or that its result is
// uncertain.
type RefusedError struct {
	// ID is in kebab-case and never changes.
	ID string
	// Reason says why, and what to do instead.
	Reason string
}

func (e *RefusedError) Error() string { return e.Reason }

func refuse(id, format string, args ...any) error {
	return &RefusedError{id, fmt.Sprintf(format, args...)}
}

// OptionError is a mistake in an option.
type OptionError struct {
	// Option is the name of the field in Options, in lower case.
	Option string
	// Reason continues it.
	Reason string
}

func (e *OptionError) Error() string { return e.Option + ": " + e.Reason }

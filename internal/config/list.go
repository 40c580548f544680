// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// item is one line of text in a list.
type item struct {
	line  int
	field string // full name: vault.keynames[1]
	text  string
}

// listedAlready takes the text and the line of the first one.
const listedAlready = "%s is listed already on line %d; remove one of them"

// list reads a field that holds a list, and returns the items that are text. It returns none when the field is absent
// or refused; howTo says what to write instead.
func (p *parser) list(s section, name, howTo string) (items []item) {
	if !s.has(name) {
		return nil
	}
	value, line, field := s.value(name), s.lineOf(name), s.full(name)
	switch {
	case !p.isPlain(line, field, value):
		return nil
	case isNull(value), value.Kind == yaml.SequenceNode && len(value.Content) == 0:
		p.refuse(line, field, "is empty; %s", howTo)
		return nil
	case value.Kind != yaml.SequenceNode:
		p.refuse(line, field, "must be a list; %s", howTo)
		return nil
	}
	for i, n := range value.Content {
		field := fmt.Sprintf("%s[%d]", field, i)
		if text, ok := p.textOf(n, n.Line, field); ok {
			items = append(items, item{line: n.Line, field: field, text: text})
		}
	}
	return items
}

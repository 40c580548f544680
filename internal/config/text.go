// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// isPlain reports whether n is free of the YAML features that make a line mean something else than it says; if not, it
// refuses the field.
func (p *parser) isPlain(line int, field string, n *yaml.Node) bool {
	const howTo = "; write the value itself, in quotes if it begins with "
	switch {
	case n.Kind == yaml.AliasNode:
		p.refuse(line, field, "YAML aliases (*) are not supported"+howTo+"*")
	case n.Anchor != "":
		p.refuse(line, field, "YAML anchors (&) are not supported"+howTo+"&")
	case n.Style&yaml.TaggedStyle != 0 && n.ShortTag() != naturalTag[n.Kind]:
		p.refuse(line, field, "YAML tags (!) are not supported"+howTo+"!")
	default:
		return true
	}
	return false
}

// naturalTag is the tag that changes nothing, since everything we read is text, lists and mappings.
var naturalTag = map[yaml.Kind]string{yaml.ScalarNode: "!!str", yaml.SequenceNode: "!!seq", yaml.MappingNode: "!!map"}

// isNull reports whether n is a name with nothing behind it, or with ~ or null.
func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// text returns the value of a field that holds one line of text. ok is false when the field is absent or refused.
func (p *parser) text(s section, name string) (value string, ok bool) {
	if !s.has(name) {
		return "", false
	}
	return p.textOf(s.value(name), s.lineOf(name), s.full(name))
}

// textOf returns the text that n holds, on behalf of the field that stands on line.
func (p *parser) textOf(n *yaml.Node, line int, field string) (value string, ok bool) {
	if !p.isPlain(line, field, n) {
		return "", false
	}
	wrong := ""
	switch {
	case n.Kind == yaml.SequenceNode:
		wrong = "must be one value, not a list"
	case n.Kind == yaml.MappingNode:
		wrong = "must be one value, not fields; put it in quotes if it begins with {"
	case isNull(n):
		wrong = "has no value; write one or remove the line"
	default:
		value = plainText(n)
		wrong = textProblem(value)
	}
	if wrong != "" {
		p.refuse(line, field, "%s", wrong)
		return "", false
	}
	return value, true
}

// boolean returns the value of a field that is true or false. ok is false when the field is absent or refused.
func (p *parser) boolean(s section, name string) (value, ok bool) {
	text, ok := p.text(s, name)
	if !ok {
		return false, false
	}
	switch strings.ToLower(text) {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	p.refuse(s.lineOf(name), s.full(name), "must be true or false")
	return false, false
}

// plainText returns a scalar as it is written: a token of digits is text like any other. Outer white space goes,
// because templates leave it behind.
func plainText(n *yaml.Node) string { return strings.TrimSpace(n.Value) }

// textProblem says what keeps value from being one line of text that somebody meant; "" when nothing does. It reads on
// from the name of the field or file that holds value.
func textProblem(value string) string {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	switch {
	case value == "":
		return "is empty; write a value"
	case strings.Contains(value, "<no value>"):
		return "holds <no value>: the KV secret lacks that field, so Vault Agent rendered nothing there; " +
			"add the field to the secret or correct its name in the template"
	case strings.ContainsAny(value, "\r\n"):
		return "holds several lines; write one"
	case !utf8.ValidString(value) || strings.ContainsFunc(value, unprintable):
		return "holds a tab or another character that cannot be printed; remove it"
	}
	return ""
}

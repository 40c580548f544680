// SPDX-License-Identifier: Apache-2.0

package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"
)

// sections lists all there are, the outer before the inner.
var sections = []string{"", "vault", "vault.kubernetes", "vault.jwt"}

// knownFields lists what each section may hold, in the spelling of the documentation. Case does not matter, as it did
// not in the original Trousseau.
var knownFields = map[string][]string{
	"": {"provider", "vault"},
	"vault": {
		"address", "addresses", "apiProxy", "associatedData", "authNamespace", "authPath", "clientCert", "clientKey",
		"jwt", "keynames", "kubernetes", "namespace", "requireAssociatedData", "roleID", "secretID", "secretIDFile",
		"tlsServerName", "token", "tokenFile", "transitPath", "vaultCACert",
	},
	"vault.kubernetes": {"role", "tokenFile"},
	"vault.jwt":        {"role", "tokenFile"},
}

// knownField returns the documented spelling of a field.
func knownField(section, name string) (spelling string, known bool) {
	at := slices.IndexFunc(knownFields[section], func(f string) bool { return strings.EqualFold(f, name) })
	if at < 0 {
		return "", false
	}
	return knownFields[section][at], true
}

// section is a mapping whose keys are all known fields, each present once.
type section struct {
	name   string // as the operator knows it: vault.kubernetes; "" for the top level
	line   int
	fields map[string]field // documented spelling → field
}

// field is one field as it stands in the file.
type field struct {
	line  int
	value *yaml.Node
}

func (s section) has(name string) bool         { return s.fields[name].value != nil }
func (s section) value(name string) *yaml.Node { return s.fields[name].value }

// lineOf returns the line of a field, or that of the section when the field is absent.
func (s section) lineOf(name string) int {
	if !s.has(name) {
		return s.line
	}
	return s.fields[name].line
}

// first returns the one of some fields that stands first in the file, or "" when none is there.
func (s section) first(names ...string) (first string) {
	for _, name := range names {
		if s.has(name) && (first == "" || s.lineOf(name) < s.lineOf(first)) {
			first = name
		}
	}
	return first
}

// full returns a field's name as the operator knows it: vault.token.
func (s section) full(name string) string {
	if s.name == "" {
		return name
	}
	return s.name + "." + name
}

// section reads a mapping. It refuses unknown and repeated fields but goes on with the others; ok is false when n is
// no mapping at all.
func (p *parser) section(name string, line int, n *yaml.Node) (s section, ok bool) {
	if !p.isPlain(line, name, n) {
		return section{}, false
	}
	known := strings.Join(knownFields[name], ", ")
	switch {
	case isNull(n):
		p.refuse(line, name, "has nothing below it; indent its fields: %s", known)
		return section{}, false
	case n.Kind != yaml.MappingNode:
		p.refuse(line, name, `expected fields, one on each line as "name: value"; the known ones are %s`, known)
		return section{}, false
	}
	s = section{name: name, line: line, fields: make(map[string]field)}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		spelling, known := p.fieldName(s, key)
		if !known {
			continue
		}
		if s.has(spelling) {
			p.refuse(key.Line, s.full(spelling), "is set twice, on lines %d and %d; keep one of them",
				s.lineOf(spelling), key.Line)
			continue
		}
		s.fields[spelling] = field{line: key.Line, value: value}
	}
	return s, true
}

// within reads the section that a field of s holds.
func (p *parser) within(s section, name string) (inner section, ok bool) {
	return p.section(s.full(name), s.lineOf(name), s.value(name))
}

// plainWord is what a misspelled field name may look like for us to repeat it. Vault's tokens have a dot in them.
var plainWord = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)

// fieldName returns the documented spelling of the field that a mapping's key names, or refuses it.
func (p *parser) fieldName(s section, key *yaml.Node) (spelling string, known bool) {
	if key.ShortTag() == "!!merge" {
		p.refuse(key.Line, s.name, "YAML merge keys (<<) are not supported; write the fields themselves")
		return "", false
	}
	if !p.isPlain(key.Line, s.name, key) {
		return "", false
	}
	if key.Kind != yaml.ScalarNode || !plainWord.MatchString(key.Value) {
		p.refuse(key.Line, s.name, "here is something other than a field (not shown, it could be a secret); "+
			"the known ones are %s", strings.Join(knownFields[s.name], ", "))
		return "", false
	}
	if spelling, known = knownField(s.name, key.Value); known {
		return spelling, true
	}
	p.refuse(key.Line, s.full(key.Value), "is not a known field; %s", suggestion(s.name, key.Value))
	return "", false
}

// suggestion says what to write instead of an unknown field.
func suggestion(section, name string) string {
	var right string
	var places []string
	for _, other := range sections {
		spelling, known := knownField(other, name)
		inner, beneath := strings.CutPrefix(section, other+".")
		switch {
		case !known:
			continue
		case other == "":
			return "write " + spelling + " at the top level, without indentation"
		case beneath:
			return "write " + spelling + " under " + other + ", beside " + inner
		}
		right, places = spelling, append(places, other)
	}
	if places != nil {
		return "write " + right + " under " + strings.Join(places, " or ") + ", indented"
	}
	distance := func(f string) int { return levenshtein.ComputeDistance(strings.ToLower(f), strings.ToLower(name)) }
	nearest := slices.MinFunc(knownFields[section], func(a, b string) int { return distance(a) - distance(b) })
	if distance(nearest) <= max(1, len(nearest)/3) {
		return "did you mean " + nearest + "?"
	}
	return "the known ones are " + strings.Join(knownFields[section], ", ")
}

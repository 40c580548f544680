// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// decode returns the root of the one YAML document in data. With problems, root is that of the first document if it has
// one, else nil.
func decode(data []byte) (root *yaml.Node, problems []Problem) {
	refuse := func(line int, text string) []Problem { return []Problem{{Line: line, Text: text}} }
	if len(data) > MaxSize {
		return nil, refuse(0, "the file is larger than 1 MiB; it cannot be a Trousseau configuration")
	}
	for at, r := range string(data) {
		invalid := r == utf8.RuneError && !bytes.HasPrefix(data[at:], []byte("\ufffd"))
		if invalid || r < ' ' && r != '\t' && r != '\n' && r != '\r' {
			return nil, refuse(1+bytes.Count(data[:at], []byte("\n")),
				"the file is not text: this line contains a byte that is not printable UTF-8")
		}
	}
	docs, err := documents(data)
	if err != nil {
		return nil, refuse(syntaxProblem(data, err))
	}
	if len(docs) > 1 {
		problems = refuse(docs[1].Line, `a second YAML document begins here; keep one, and remove the "---" between them`)
	}
	if len(docs) > 0 && !isNull(docs[0].Content[0]) {
		return docs[0].Content[0], problems
	}
	if problems == nil {
		problems = refuse(0, "the file is empty; it needs a vault section with keynames, address and token")
	}
	return nil, problems
}

// documents parses data. It stops after the second document, since one is all we take.
func documents(data []byte) (found []*yaml.Node, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for len(found) < 2 {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, err
		}
		found = append(found, &document)
	}
	return found, nil
}

// indentedMark matches the mark of a document where YAML does not take it for one.
var indentedMark = regexp.MustCompile(`(?m)^[ \t]+---[ \t\r]*$`)

// syntaxProblem puts a YAML error in our own words: the library's text may quote a value, and its line is that of the
// enclosing mapping. The line is the first one that makes data invalid: up to the line before, it is valid. Where a value
// spans lines the mistake may be further down, but never further up. It is 0 for a file of more than 64 KiB.
func syntaxProblem(data []byte, err error) (line int, text string) {
	text = `not valid YAML; write name: "value", indented with spaces, not tabs, and check that the file is complete`
	if strings.HasPrefix(err.Error(), "yaml: unknown anchor ") {
		text = "a value that begins with * is a YAML alias; write the value itself, in quotes if it begins with *"
	}
	if len(data) > 64<<10 { // each step of the search parses the file again
		return 0, text
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	upTo := func(line int) []byte { return bytes.Join(lines[:line], nil) }
	line = 1 + sort.Search(len(lines), func(i int) bool {
		_, err := documents(upTo(i + 1))
		return err != nil
	})
	if mark := indentedMark.FindIndex(upTo(line)); mark != nil {
		return 1 + bytes.Count(data[:mark[0]], []byte("\n")), `the document mark "---" must not be indented; ` +
			"move it to the beginning of its line, or remove it"
	}
	return line, text
}

// section is a mapping of the file: documented spelling of a field → its value. Every known field has one.
type section map[string]value

// value is a field, or one item of a list, as it stands in the file, and what read makes of it; nothing if it is absent
// or refused.
type value struct {
	place
	node  *yaml.Node // nil when the field is absent
	text  string     // of kinds scalar and file
	items []value    // of kind list
	inner section    // of kind mapping
}

// place is where a problem is: the full name of a field, such as vault.keynames[1], and the line where it stands, or
// where the section begins that lacks it.
type place struct {
	field string
	line  int
}

func (s section) has(name string) bool { return s[name].node != nil }

// first returns that one of names which stands first in the file, or "" when none is there.
func (s section) first(names ...string) (first string) {
	for _, name := range names {
		if s.has(name) && (first == "" || s[name].line < s[first].line) {
			first = name
		}
	}
	return first
}

// section reads a mapping. It refuses unknown and repeated fields but goes on with the others. It returns nil when n is
// not a mapping.
func (p *parser) section(at place, n *yaml.Node) section {
	if !p.accept(at, wrongKind(n, mapping, strings.Join(fieldNames(at.field), ", "))) {
		return nil
	}
	s := make(section)
	for _, f := range table[at.field] {
		s[f.name] = value{place: at.below(f.name, at.line)}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		name, wrong := fieldName(at.field, key)
		if s.has(name) {
			wrong = fmt.Sprintf("is set twice, on lines %d and %d; keep one of them", s[name].line, key.Line)
		}
		if here := at.below(name, key.Line); p.accept(here, wrong) {
			s[name] = value{place: here, node: n.Content[i+1]}
		}
	}
	p.read(at.field, s)
	return s
}

// below returns the place of a field of a section.
func (at place) below(name string, line int) place {
	return place{strings.Trim(at.field+"."+name, "."), line}
}

// plainWord is what a misspelled field name must look like to be quoted. Vault's tokens have a dot in them.
var plainWord = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)

// fieldName returns the documented spelling of the field that a mapping's key names, or what is wrong with it. The name
// of an unknown field is as it stands in the file, or "" when it is not to be quoted.
func fieldName(section string, key *yaml.Node) (name, wrong string) {
	if key.ShortTag() == "!!merge" {
		return "", "YAML merge keys (<<) are not supported; write the fields themselves"
	}
	if wrong := unsupported(key); wrong != "" {
		return "", wrong
	}
	if key.Kind != yaml.ScalarNode || !plainWord.MatchString(key.Value) {
		return "", "expected a field name here (the text is not shown, it could be a secret); the known ones are " +
			strings.Join(fieldNames(section), ", ")
	}
	if name, known := knownField(section, key.Value); known {
		return name, ""
	}
	return key.Value, "is not a known field; " + suggestion(section, key.Value)
}

// unsupported says which YAML feature makes n mean something other than it says; "" when none does.
func unsupported(n *yaml.Node) string {
	const howTo = "; write the value itself, in quotes if it begins with "
	switch {
	case n.Kind == yaml.AliasNode:
		return "YAML aliases (*) are not supported" + howTo + "*"
	case n.Anchor != "":
		return "YAML anchors (&) are not supported" + howTo + "&"
	case n.Style&yaml.TaggedStyle != 0 && n.ShortTag() != naturalTag[n.Kind]:
		return "YAML tags (!) are not supported" + howTo + "!"
	}
	return ""
}

// wrongKind says why n cannot be a value of that kind; "" when it can. howTo says what to write instead.
func wrongKind(n *yaml.Node, k kind, howTo string) string {
	wrong, absent := unsupported(n), isNull(n)
	switch {
	case wrong != "":
		return wrong
	case k == mapping && absent:
		return "has no fields below it; indent them: " + howTo
	case k == mapping && n.Kind != yaml.MappingNode:
		return `expected fields, one per line as "name: value"; the known ones are ` + howTo
	case k == list && (absent || n.Kind == yaml.SequenceNode && len(n.Content) == 0):
		return "is empty; " + howTo
	case k == list && n.Kind != yaml.SequenceNode:
		return "must be a list; " + howTo
	case k == mapping, k == list:
		return ""
	case n.Kind == yaml.SequenceNode:
		return "must be one value, not a list"
	case n.Kind == yaml.MappingNode:
		return "must be one value, not fields; put it in quotes if it begins with {"
	case absent:
		return "has no value; write one or remove the line"
	}
	return ""
}

// naturalTag is the tag that changes nothing, because every value is text, a list or a mapping.
var naturalTag = map[yaml.Kind]string{yaml.ScalarNode: "!!str", yaml.SequenceNode: "!!seq", yaml.MappingNode: "!!map"}

// isNull reports whether n is a name with nothing behind it, or with ~ or null.
func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

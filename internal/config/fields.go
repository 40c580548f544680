// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"
)

// field is one row of the table below.
type field struct {
	name     string // as documented; case does not matter, as in the original Trousseau
	kind     kind
	check    check  // of the value, of each item of a list, or of the content of a file
	required bool   // the section must have it
	howTo    string // what to write, if it is required or a list
	absent   string // the file to read when the field is absent
}

type kind int

const (
	scalar  kind = iota // one line of text
	file                // the absolute name of a file
	list                // lines of text
	mapping             // a section of its own, whose full name is a key of the table
)

// table has every field of config.yaml: full name of the section → its fields. Problems on the same line are reported
// in this order. Rules that concern several fields are in methods of the parser: root, credential and tls.
var table = map[string][]field{
	"": {
		{name: "provider", check: checkProvider},
		{name: "vault", kind: mapping},
	},
	"vault": {
		{name: "keynames", kind: list, check: checkKeyName, required: true,
			howTo: `list the transit keys below "keynames:", each on a line of its own as "- name"`},
		{name: "address", check: checkAddress, required: true,
			howTo: `write the URL of Vault, such as "https://vault.example:8200"`},
		{name: "addresses", kind: list, check: checkAddress,
			howTo: `list the URLs of further nodes below "addresses:", each on a line of its own as ` +
				`"- https://vault-2.example:8200", or remove the line`},
		{name: "namespace", check: checkPath},
		{name: "transitPath", check: checkPath},
		{name: "associatedData", check: checkAssociatedData},
		{name: "requireAssociatedData", check: checkBoolean},
		{name: "acceptBareKeyIDs", check: checkBoolean},

		{name: "token", check: checkToken},
		{name: "tokenFile", kind: file, check: checkToken},
		{name: "roleID", check: checkName},
		{name: "secretID", check: checkLine},
		{name: "secretIDFile", kind: file, check: checkLine},
		{name: "kubernetes", kind: mapping},
		{name: "jwt", kind: mapping},
		{name: "apiProxy", check: checkBoolean},
		{name: "authPath", check: checkAuthPath},
		{name: "authNamespace", check: checkPath},

		{name: "vaultCACert", kind: file, check: checkCertificates},
		{name: "tlsServerName", check: checkHostName},
		{name: "clientCert", kind: file, check: checkCertificates},
		{name: "clientKey", kind: file, check: checkPrivateKey},
	},
	"vault.kubernetes": {
		{name: "role", check: checkName, required: true,
			howTo: "write the role to log in with at Vault's Kubernetes auth method"},
		{name: "tokenFile", kind: file, check: checkToken,
			absent: "/var/run/secrets/kubernetes.io/serviceaccount/token"}, // where Kubernetes mounts a pod's token
	},
	"vault.jwt": {
		{name: "role", check: checkName},
		{name: "tokenFile", kind: file, check: checkToken, required: true,
			howTo: "write the name of the file that holds the JWT"},
	},
}

// knownField returns the documented spelling of a field.
func knownField(section, name string) (spelling string, known bool) {
	for _, f := range table[section] {
		if strings.EqualFold(f.name, name) {
			return f.name, true
		}
	}
	return "", false
}

// fieldNames returns the names of a section's fields, sorted.
func fieldNames(section string) (names []string) {
	for _, f := range table[section] {
		names = append(names, f.name)
	}
	slices.Sort(names)
	return names
}

// suggestion says what to write instead of an unknown field.
func suggestion(section, name string) string {
	var right string
	var places []string
	for _, other := range slices.Sorted(maps.Keys(table)) { // outer sections before inner ones
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
	names := fieldNames(section)
	misspelled := strings.ToLower(name)
	distance := func(f string) int { // others write vaultNamespace for what is vault.namespace here
		return min(levenshtein.ComputeDistance(strings.ToLower(f), misspelled),
			levenshtein.ComputeDistance(strings.ToLower(f), strings.TrimPrefix(misspelled, "vault")))
	}
	nearest := slices.MinFunc(names, func(a, b string) int { return distance(a) - distance(b) })
	if distance(nearest) <= max(1, len(nearest)/3) {
		return "did you mean " + nearest + "?"
	}
	return "the known ones are " + strings.Join(names, ", ")
}

// read fills in what the fields of a section hold.
func (p *parser) read(name string, s section) {
	for _, f := range table[name] {
		v := s[f.name]
		switch {
		case v.node == nil && f.required:
			p.refuse(v.place, "is missing; "+f.howTo)
		case v.node == nil && f.absent != "":
			v.text = p.content(v.place, f.absent, f.check)
		case v.node == nil:
		case f.kind == scalar:
			v.text = p.text(v.place, v.node, f.check)
		case f.kind == file:
			if name := p.text(v.place, v.node, checkFileName); name != "" {
				v.text = p.content(v.place, name, f.check)
			}
		case f.kind == list:
			v.items = p.list(v.place, v.node, f)
		case f.kind == mapping:
			v.inner = p.section(v.place, v.node)
		}
		s[f.name] = v
	}
}

// text returns the one line of text that n holds, as check keeps it; "" when it is refused.
func (p *parser) text(at place, n *yaml.Node, check check) (kept string) {
	wrong := wrongKind(n, scalar, "")
	if wrong == "" {
		kept, wrong = check(n.Value) // as it is written: a token of digits is text like any other
	}
	if !p.accept(at, wrong) {
		return ""
	}
	return kept
}

// content returns the content of a file, as check keeps it; "" when it is refused.
func (p *parser) content(at place, name string, check check) (kept string) {
	content, err := p.open(name)
	if err != nil {
		p.refuse(at, "reading "+show(name)+": "+reason(err))
		return ""
	}
	kept, wrong := check(string(content))
	if wrong != "" {
		p.refuse(at, show(name)+" "+wrong)
		return ""
	}
	return kept
}

// list returns the items that n holds, without those that are refused, such as duplicates.
func (p *parser) list(at place, n *yaml.Node, f field) (items []value) {
	if !p.accept(at, wrongKind(n, list, f.howTo)) {
		return nil
	}
	lines := make(map[string]int)
	for i, node := range n.Content {
		item := value{place: place{fmt.Sprintf("%s[%d]", at.field, i), node.Line}}
		item.text = p.text(item.place, node, f.check)
		switch first, seen := lines[item.text]; {
		case item.text == "":
		case seen:
			p.refuse(item.place, duplicate(item.text, first))
		default:
			lines[item.text] = node.Line
			items = append(items, item)
		}
	}
	return items
}

func duplicate(text string, first int) string {
	return fmt.Sprintf("%s is already listed on line %d; remove one of them", show(text), first)
}

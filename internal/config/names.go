// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"regexp"
	"strings"
)

// maxName bounds namespace, transitPath and each key name, in bytes: all three go into the key_id, of which
// kube-apiserver takes 1024 bytes (KeyIDMaxSize in k8s.io/apiserver). The names that only Vault sees keep to it too.
const maxName = 256

// keyName is Vault's own rule for a key in a path (framework.GenericNameRegex in vault/sdk).
var keyName = regexp.MustCompile(`^\w(([\w-.]+)?\w)?$`)

// keyNames reads the list of transit keys.
func (p *parser) keyNames(s section) (names []string) {
	const howTo = `list the transit keys below it, each on a line of its own as "- name"`
	if !s.has("keynames") {
		p.refuse(s.line, s.full("keynames"), "is missing; write keynames: and "+howTo)
		return nil
	}
	firstLine := make(map[string]int)
	for _, item := range p.list(s, "keynames", howTo) {
		name := item.text
		if wrong := keyNameProblem(name); wrong != "" {
			p.refuse(item.line, item.field, "%s %s", show(name), wrong)
			continue
		}
		if first, seen := firstLine[name]; seen {
			p.refuse(item.line, item.field, listedAlready, show(name), first)
			continue
		}
		firstLine[name] = item.line
		names = append(names, name)
	}
	return names
}

// path reads the field of a mount or a namespace. It is trimmed of outer slashes, as Vault does itself.
func (p *parser) path(s section, name, whenAbsent string) string {
	if !s.has(name) {
		return whenAbsent
	}
	value, ok := p.text(s, name)
	if !ok {
		return ""
	}
	path := strings.Trim(value, "/")
	if wrong := pathProblem(path); wrong != "" {
		p.refuse(s.lineOf(name), s.full(name), "%s %s", show(value), wrong)
		return ""
	}
	return path
}

// name reads the field of a role or its ID.
func (p *parser) name(s section, field string) string {
	value, ok := p.text(s, field)
	if !ok {
		return ""
	}
	if wrong := nameProblem(value); wrong != "" {
		p.refuse(s.lineOf(field), s.full(field), "%s %s", show(value), wrong)
		return ""
	}
	return value
}

// keyNameProblem says what is wrong with the name of a transit key; "" when nothing is. Like the others here it reads
// on from the name.
func keyNameProblem(name string) string {
	if !keyName.MatchString(name) {
		return `is no name for a transit key; use letters a-z, digits and "_", and between them "-" and "."`
	}
	return nameProblem(name)
}

// pathProblem says what is wrong with a mount or a namespace. A path that Vault or a proxy would read as another one
// must not get into the key_id.
func pathProblem(path string) string {
	if path == "" {
		return "names nothing; write a name or remove the line"
	}
	if strings.ContainsAny(path, ` \%?#`) {
		return `holds a blank or one of \ % ? #; write the path itself, without escapes`
	}
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "":
			return "has an empty segment; write one slash between two names"
		case ".", "..":
			return `has "." or ".." for a segment; write the path without it`
		}
	}
	return nameProblem(path)
}

// nameProblem says what is wrong with any name. Names go to etcd, logs and metrics in the clear.
func nameProblem(name string) string {
	if len(name) > maxName {
		return fmt.Sprintf("is too long; Trousseau takes names of up to %d bytes", maxName)
	}
	return elsewhere(name)
}

// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"
	"strings"
)

// Policy returns the minimal policy of Trousseau: encrypt with the first key, and
// decrypt with and read every key. Namespace is that of the transit engine, relative
// to the namespace of the policy; "" if they are the same.
func Policy(namespace, mount string, keys []string) string {
	prefix := mount
	if namespace = strings.Trim(namespace, "/"); namespace != "" {
		prefix = namespace + "/" + mount
	}
	var rules []string
	for i, key := range keys {
		if i == 0 {
			rules = append(rules, rule(prefix+"/encrypt/"+key, "update"))
		}
		rules = append(rules, rule(prefix+"/decrypt/"+key, "update"), rule(prefix+"/keys/"+key, "read"))
	}
	return strings.Join(rules, "\n")
}

func (o Options) policy() string { return Policy("", o.TransitMount, o.Keys) }

func (o Options) agentPolicy() string { return rule(o.KVMount+"/data/"+o.KVPath, "read") }

func rule(path, capability string) string {
	return fmt.Sprintf("path %q {\n  capabilities = [%q]\n}\n", path, capability)
}

// samePolicy compares two policies without regard to white space.
func samePolicy(a, b string) bool {
	return strings.Join(strings.Fields(a), " ") == strings.Join(strings.Fields(b), " ")
}

// difference lists the removed lines and then the added lines.
func difference(was, is string) []string {
	var lines []string
	missing := func(mark, from, in string) {
		has := map[string]bool{}
		for line := range strings.Lines(in) {
			has[strings.TrimSpace(line)] = true
		}
		for line := range strings.Lines(from) {
			if text := strings.TrimSpace(line); text != "" && !has[text] {
				lines = append(lines, mark+" "+text)
			}
		}
	}
	missing("-", was, is)
	missing("+", is, was)
	if len(lines) == 0 {
		lines = append(lines, "the same lines in another order, or repeated")
	}
	return lines
}

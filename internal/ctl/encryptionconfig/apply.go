// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"reflect"
	"slices"
	"strings"

	yamlnode "go.yaml.in/yaml/v3"
)

// apply changes the text, parses the result, and compares it with the same change of
// the tree, to make sure that nothing else has changed.
func (d *document) apply(c change, o Options) (*document, error) {
	at := path{"resources"}
	if c.kind != extend {
		at = at.index(c.entry).field("providers")
	}
	seq, line := node(d.root, at)
	s := splice{text: d.text, seq: seq}
	var text []byte
	ok := false
	switch c.kind {
	case extend:
		text, ok = s.insert(len(seq.Content), entryLines(o), entryFlow(o))
	case insert:
		text, ok = s.insert(c.to, providerLines(o), providerFlow(o))
	case move:
		text, ok = s.first(c.from)
	}
	if ok {
		after, err := parse(text)
		if err == nil && reflect.DeepEqual(after.tree, d.expected(c, o)) {
			return after, nil
		}
	}
	return nil, refuse("line %d: %s is in a YAML style that this command cannot edit: write each item on its own line, after a -, and run this again", line, at)
}

// expected returns the changed tree. It shares the unchanged parts.
func (d *document) expected(c change, o Options) any {
	top := clone(d.tree.(map[string]any))
	entries := slices.Clone(top["resources"].([]any))
	top["resources"] = entries
	if c.kind == extend {
		top["resources"] = append(entries, tree(entryFlow(o)))
		return top
	}
	e := clone(entries[c.entry].(map[string]any))
	entries[c.entry] = e
	providers := slices.Clone(e["providers"].([]any))
	switch c.kind {
	case insert:
		providers = slices.Insert(providers, c.to, tree(providerFlow(o)))
	case move:
		ours := providers[c.from]
		providers = slices.Insert(slices.Delete(providers, c.from, c.from+1), 0, ours)
	}
	e["providers"] = providers
	return top
}

func clone(m map[string]any) map[string]any {
	c := make(map[string]any, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func tree(flow string) any {
	v, err := asAPIServer([]byte(flow))
	if err != nil {
		panic(err) // we have built it from checked options
	}
	return v
}

// providerLines returns our provider in block style, providerFlow in flow style, which
// is also JSON.
func providerLines(o Options) []string {
	return []string{
		"- kms:",
		"    apiVersion: v2",
		"    name: " + scalar(o.Name),
		"    endpoint: " + scalar(o.Endpoint.String()),
		"    timeout: " + o.timeout(),
	}
}

func providerFlow(o Options) string {
	return `{"kms": {"apiVersion": "v2", "name": "` + o.Name + `", "endpoint": "` + o.Endpoint.String() + `", "timeout": "` + o.timeout() + `"}}`
}

// entryLines returns an entry for resources that were not encrypted before.
func entryLines(o Options) []string {
	text := []string{"- resources:"}
	for _, r := range o.Resources {
		text = append(text, "  - "+scalar(r))
	}
	text = append(text, "  providers:")
	ours, identity := indented("  ", providerLines(o)), "  - identity: {}"
	if o.Phase == Read {
		return append(append(text, identity), ours...)
	}
	return append(append(text, ours...), identity)
}

func entryFlow(o Options) string {
	providers := providerFlow(o) + `, {"identity": {}}`
	if o.Phase == Read {
		providers = `{"identity": {}}, ` + providerFlow(o)
	}
	return `{"resources": ["` + strings.Join(o.Resources, `", "`) + `"], "providers": [` + providers + `]}`
}

func (o Options) timeout() string {
	if o.Timeout == 0 {
		return DefaultTimeout.String()
	}
	return o.Timeout.String()
}

// scalar quotes s if YAML would not read it as a string.
func scalar(s string) string {
	text, err := yamlnode.Marshal(s)
	if err != nil {
		panic(err) // every string has a YAML form
	}
	return strings.TrimSuffix(string(text), "\n")
}

func indented(by string, text []string) []string {
	all := make([]string, len(text))
	for i, l := range text {
		all[i] = by + l
	}
	return all
}

func lines(text []string, end string) string {
	return strings.Join(text, end) + end
}

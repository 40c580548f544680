// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	yamlnode "go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/apiserver"
	serverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
)

// apply changes the text, loads the result, and compares it with the same change of
// the loaded configuration, to make sure that nothing else has changed.
func (d *document) apply(c change, o Options) (*document, error) {
	at := "resources"
	if c.kind != extend {
		at = fmt.Sprintf("resources[%d].providers", c.entry)
	}
	seq, line := node(d.root, at)
	s := splice{text: d.text, seq: seq}
	var text []byte
	ok := false
	switch c.kind {
	case extend:
		text, ok = s.insert(len(seq.Content), written(o.entry()))
	case insert:
		text, ok = s.insert(c.to, written(o.provider()))
	case move:
		text, ok = s.first(c.from)
	}
	if ok {
		after, err := parse(text)
		if err == nil && reflect.DeepEqual(after.loaded, d.expected(c, o)) {
			return after, nil
		}
	}
	return nil, refuse("yaml-style", "line %d: %s is in a YAML style that this command cannot edit: write each item on its own line, after a -, and run this again", line, at)
}

// expected returns the changed configuration.
func (d *document) expected(c change, o Options) *apiserver.EncryptionConfiguration {
	all := d.loaded.DeepCopy()
	if c.kind == move {
		e := &all.Resources[c.entry]
		ours := e.Providers[c.from]
		e.Providers = slices.Insert(slices.Delete(e.Providers, c.from, c.from+1), 0, ours)
		return all
	}
	alone, err := parse(o.file())
	if err != nil {
		return nil
	}
	added := alone.loaded.Resources[0]
	if c.kind == extend {
		all.Resources = append(all.Resources, added)
		return all
	}
	ours := added.Providers[slices.IndexFunc(added.Providers, func(p apiserver.ProviderConfiguration) bool { return p.KMS != nil })]
	e := &all.Resources[c.entry]
	e.Providers = slices.Insert(e.Providers, c.to, ours)
	return all
}

// file is a new configuration.
func (o Options) file() []byte {
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
	return []byte(head + written(o.entry()).block)
}

// entry is an item for resources that were not encrypted before.
func (o Options) entry() serverv1.ResourceConfiguration {
	providers := []serverv1.ProviderConfiguration{{Identity: &serverv1.IdentityConfiguration{}}, o.provider()}
	if o.Phase == Write {
		slices.Reverse(providers)
	}
	return serverv1.ResourceConfiguration{Resources: o.Resources, Providers: providers}
}

func (o Options) provider() serverv1.ProviderConfiguration {
	return serverv1.ProviderConfiguration{KMS: &serverv1.KMSConfiguration{
		APIVersion: "v2", Name: o.Name, Endpoint: o.Endpoint.String(),
		Timeout: &metav1.Duration{Duration: cmp.Or(o.Timeout, DefaultTimeout)},
	}}
}

// item is one item of a list, in YAML's flow style and, after a dash, in its block
// style.
type item struct{ flow, block string }

// written marshals an item. What cannot be marshalled is a mistake in this package.
func written(v any) (i item) {
	var n yamlnode.Node
	text, err := json.Marshal(v)
	if err == nil {
		err = yamlnode.Unmarshal(text, &n)
	}
	if err != nil {
		panic(err)
	}
	i.flow = strings.TrimSuffix(encoded(n.Content[0]), "\n")
	unstyled(n.Content[0])
	i.block = encoded(&yamlnode.Node{Kind: yamlnode.SequenceNode, Content: n.Content})
	return i
}

func encoded(n *yamlnode.Node) string {
	var b bytes.Buffer
	encoder := yamlnode.NewEncoder(&b)
	encoder.SetIndent(2)
	encoder.CompactSeqIndent()
	if err := encoder.Encode(n); err != nil {
		panic(err) // never, in memory
	}
	return b.String()
}

// unstyled makes the encoder choose block style, and quotes only where needed, also for
// YAML 1.1, which kube-apiserver reads.
func unstyled(n *yamlnode.Node) {
	n.Style = 0
	if text, err := yamlnode.Marshal(n.Value); err == nil && text[0] == '"' {
		n.Style = yamlnode.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		unstyled(c)
	}
}

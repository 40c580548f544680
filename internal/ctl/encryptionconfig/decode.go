// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	yamlnode "go.yaml.in/yaml/v3"
)

// reader decodes a tree into a configuration and collects its problems. If a field is
// missing or null, it continues with the zero value, like encoding/json.
type reader struct {
	root     *yamlnode.Node
	problems []Problem
	// keys are the keys by path, for validate.
	keys map[string]key
}

// key is a key of aescbc, aesgcm or secretbox.
type key struct {
	name   string
	secret string
}

func (r *reader) refuse(at path, format string, args ...any) {
	_, line := node(r.root, at)
	r.problems = append(r.problems, Problem{Line: line, Field: at.String(), Text: fmt.Sprintf(format, args...)})
}

func (r *reader) configuration(tree any) (c Configuration) {
	named, _ := tree.(map[string]any)
	if named != nil && !r.identify(named["apiVersion"], named["kind"]) {
		return c // other problems of a foreign file do not matter
	}
	top := r.object(tree, nil, "apiVersion", "kind", "resources")
	at := path{"resources"}
	for i, item := range r.list(top["resources"], at) {
		c.Entries = append(c.Entries, r.entry(item, at.index(i)))
	}
	return c
}

// identify accepts the versions and kinds that kube-apiserver's scheme accepts
// (addKnownTypes in pkg/apis/apiserver/v1/register.go).
func (r *reader) identify(apiVersion, kind any) bool {
	version := r.text(apiVersion, path{"apiVersion"})
	name := r.text(kind, path{"kind"})
	switch {
	case version == "apiserver.config.k8s.io/v1" && name == "EncryptionConfiguration":
		return true
	case version == "v1" && name == "EncryptionConfig": // from a mistake in old documentation
		return true
	case version == "":
		r.refuse(path{"apiVersion"}, "is missing; write apiVersion: apiserver.config.k8s.io/v1")
	case name == "":
		r.refuse(path{"kind"}, "is missing; write kind: EncryptionConfiguration")
	default:
		r.refuse(path{"kind"}, "is %q of %q; want EncryptionConfiguration of apiserver.config.k8s.io/v1: check that this is the file of --encryption-provider-config", name, version)
	}
	return false
}

func (r *reader) entry(item any, at path) (e Entry) {
	fields := r.object(item, at, "resources", "providers")
	for i, name := range r.list(fields["resources"], at.field("resources")) {
		e.Resources = append(e.Resources, r.text(name, at.field("resources").index(i)))
	}
	for i, p := range r.list(fields["providers"], at.field("providers")) {
		e.Providers = append(e.Providers, r.provider(p, at.field("providers").index(i)))
	}
	return e
}

var kinds = []string{"aesgcm", "aescbc", "secretbox", kindIdentity, kindKMS}

func (r *reader) provider(item any, at path) (p Provider) {
	before := len(r.problems)
	fields := r.object(item, at, kinds...)
	var found []string
	for _, kind := range kinds {
		if fields[kind] != nil {
			found = append(found, kind)
		}
	}
	// validateSingleProvider in pkg/apis/apiserver/validation.
	switch len(found) {
	case 0:
		if len(r.problems) == before {
			r.refuse(at, "has no provider; want one of %s. Write identity as identity: {}", strings.Join(kinds, ", "))
		}
		return p
	case 1:
	default:
		r.refuse(at, "has several providers: %s; give each its own item", strings.Join(found, ", "))
		return p
	}
	p.Kind = found[0]
	at = at.field(p.Kind)
	switch value := fields[p.Kind]; p.Kind {
	case kindIdentity:
		r.object(value, at)
	case kindKMS:
		p.KMS = r.kms(value, at)
	default:
		for i, k := range r.list(r.object(value, at, "keys")["keys"], at.field("keys")) {
			p.Keys = append(p.Keys, r.key(k, at.field("keys").index(i)))
		}
	}
	return p
}

// key returns the name, and keeps the secret for validate.
func (r *reader) key(item any, at path) string {
	fields := r.object(item, at, "name", "secret")
	k := key{name: r.text(fields["name"], at.field("name")), secret: r.text(fields["secret"], at.field("secret"))}
	if r.keys == nil {
		r.keys = map[string]key{}
	}
	r.keys[at.String()] = k
	return k.name
}

// kms fills in the defaults (SetDefaults_KMSConfiguration in
// pkg/apis/apiserver/v1/defaults.go).
func (r *reader) kms(item any, at path) *KMS {
	fields := r.object(item, at, "apiVersion", "name", "cachesize", "endpoint", "timeout")
	k := &KMS{
		APIVersion: r.text(fields["apiVersion"], at.field("apiVersion")),
		Name:       r.text(fields["name"], at.field("name")),
		Endpoint:   r.text(fields["endpoint"], at.field("endpoint")),
		Timeout:    DefaultTimeout,
	}
	if k.APIVersion == "" {
		k.APIVersion = "v1"
	}
	if fields["timeout"] != nil {
		text, _ := fields["timeout"].(string)
		timeout, err := time.ParseDuration(text)
		if err != nil {
			r.refuse(at.field("timeout"), "is not a duration such as 3s")
		}
		k.Timeout = timeout
	}
	if size := fields["cachesize"]; size != nil {
		number, _ := size.(json.Number)
		n, err := strconv.ParseInt(number.String(), 10, 32)
		if err != nil {
			r.refuse(at.field("cachesize"), "is not a 32-bit integer")
		}
		small := int32(n)
		k.cacheSize = &small
	}
	return k
}

// object returns the fields of an object, and refuses unknown ones. Names are
// case-sensitive (sigs.k8s.io/json.UnmarshalStrict).
func (r *reader) object(value any, at path, known ...string) map[string]any {
	if value == nil {
		return nil
	}
	fields, ok := value.(map[string]any)
	if !ok {
		r.refuse(at, "want fields, each as name: value")
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(known, name) {
			r.unknown(at.field(name), known)
		}
	}
	return fields
}

func (r *reader) unknown(at path, known []string) {
	if len(known) == 0 {
		r.refuse(at, "is unknown; want {}")
		return
	}
	r.refuse(at, "is unknown; want %s", strings.Join(known, ", "))
}

func (r *reader) list(value any, at path) []any {
	items, ok := value.([]any)
	if !ok && value != nil {
		r.refuse(at, "want a list, each item after a -")
	}
	return items
}

func (r *reader) text(value any, at path) string {
	s, ok := value.(string)
	if !ok && value != nil {
		r.refuse(at, "want a string, which this is not; put it into quotes")
	}
	return s
}

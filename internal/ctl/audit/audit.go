// SPDX-License-Identifier: Apache-2.0

// Package audit counts how the objects in etcd are stored, and answers three
// questions that an operator has before retiring a key version: whether anything is
// still in the clear, which key versions are needed, and which minimum is safe.
//
// It sees values as they are stored and never decrypts one. Its report holds names
// of objects, key_ids and hashes, and no part of a value.
package audit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Options say what to audit.
type Options struct {
	// Prefixes are kube-apiserver's --etcd-prefix and those of further API servers,
	// each with a slash after it. None is part of another one.
	Prefixes []string
	// Asked limits the audit to some resources, all of which are expected to be
	// encrypted. What other resources need is then unknown. Nil is no limit.
	Asked []string
	// Drill keeps every distinct seed for [Audit.Seeds], about 1 KiB each.
	// Otherwise each takes 16 bytes.
	Drill bool
}

// Audit counts objects. It is not safe for concurrent use. Its size depends on the
// number of resources, key_ids and distinct seeds, not on the number of objects.
type Audit struct {
	opts      Options
	objects   int
	resources map[string]*resource
	// outside are the encrypted objects under none of the prefixes, by the first part
	// of their keys.
	outside map[string]*resource
	seeds   seeds
	// results are those of the drill, in the order of the seeds; nil without one.
	results    []drill.Result
	unreadable []Unreadable
}

// New returns an empty Audit.
func New(opts Options) *Audit {
	return &Audit{opts: opts, resources: make(map[string]*resource), outside: make(map[string]*resource), seeds: newSeeds()}
}

// Prefixes returns the prefixes of the keys to read.
func (a *Audit) Prefixes() []string {
	if a.opts.Asked == nil {
		return a.opts.Prefixes
	}
	var prefixes []string
	for _, root := range a.opts.Prefixes {
		for _, r := range a.opts.Asked {
			prefixes = append(prefixes, stored.Prefixes(root, r)...)
		}
	}
	slices.Sort(prefixes)
	return slices.Compact(prefixes)
}

// Add counts an object. It does not keep o, and returns nil.
func (a *Audit) Add(o etcd.Object) error {
	a.objects++
	v := named(a.resources, a.resource(string(o.Key))).add(o)
	if a.opts.Drill && v.Wrapped != nil {
		a.seeds.keep(v, string(o.Key))
	}
	return nil
}

// AddOutside counts an object under none of the prefixes, if it is encrypted. It
// returns nil.
func (a *Audit) AddOutside(o etcd.Object) error {
	if !stored.IsClear(o.Value) {
		named(a.outside, firstPart(string(o.Key))).add(o)
	}
	return nil
}

// AddOlder counts a value that was overwritten or deleted.
func (a *Audit) AddOlder(o etcd.Object) {
	r := named(a.resources, a.resource(string(o.Key)))
	r.older++
	if stored.IsClear(o.Value) {
		r.olderClear++
	}
}

// Objects returns the number of objects counted.
func (a *Audit) Objects() int { return a.objects }

// Seeds returns the distinct seeds that objects depend on. It needs Options.Drill.
func (a *Audit) Seeds() []drill.Seed {
	all := make([]drill.Seed, 0, len(a.seeds.kept))
	for _, s := range a.seeds.kept {
		all = append(all, s.Seed)
	}
	return all
}

// Drilled sets the results of the drill, in the order of Seeds.
func (a *Audit) Drilled(results []drill.Result) { a.results = results }

// resource returns the resource that a key belongs to.
func (a *Audit) resource(key string) string { return stored.Resource(a.prefix(key), key) }

// prefix returns the prefix of a key; "" if it has none.
func (a *Audit) prefix(key string) string {
	i := slices.IndexFunc(a.opts.Prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
	if i < 0 {
		return ""
	}
	return a.opts.Prefixes[i]
}

// firstPart returns the first part of a key, with the slashes on both sides of it.
func firstPart(key string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(key, "/"), "/")
	return "/" + first + "/"
}

func named(resources map[string]*resource, name string) *resource {
	r := resources[name]
	if r == nil {
		r = &resource{name: name, groups: make(map[form]*group)}
		resources[name] = r
	}
	return r
}

// parse describes a value. The version is that which its wrapped key names, whichever
// plugin wrote it; 0 if it names none.
//
// A value whose key_id and wrapped seed name different versions is Malformed: Trousseau
// refuses it, so kube-apiserver cannot read it.
func parse(value []byte) (v stored.Value, version int) {
	v = stored.Parse(value)
	version, _ = vault.CiphertextVersion(v.Wrapped)
	if v.Object == nil {
		return v, version
	}
	if id, err := keyid.Parse(v.Object.KeyID); err == nil && version != 0 && version != id.Version {
		return stored.Value{Form: stored.Malformed, Name: v.Name,
			Problem: fmt.Sprintf("its key_id names version %d, but its seed was wrapped by version %d: Trousseau refuses to unwrap it", id.Version, version)}, 0
	}
	return v, version
}

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

	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Options say what to audit.
type Options struct {
	// Prefix is kube-apiserver's --etcd-prefix with a slash after it.
	Prefix string
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
	seeds     seeds
	// results are those of the drill, in the order of the seeds; nil without one.
	results []drill.Result
}

// New returns an empty Audit.
func New(opts Options) *Audit {
	return &Audit{opts: opts, resources: make(map[string]*resource), seeds: newSeeds(opts.Drill)}
}

// Prefixes returns the prefixes of the keys to read.
func (a *Audit) Prefixes() []string {
	if a.opts.Asked == nil {
		return []string{a.opts.Prefix}
	}
	var prefixes []string
	known := make(map[string]bool)
	for _, r := range a.opts.Asked {
		for _, p := range stored.Prefixes(a.opts.Prefix, r) {
			if !known[p] {
				known[p] = true
				prefixes = append(prefixes, p)
			}
		}
	}
	return prefixes
}

// Add counts an object. It does not keep o.
func (a *Audit) Add(o etcd.Object) {
	a.objects++
	key := string(o.Key)
	r := a.resource(key)
	r.objects++
	v := stored.Parse(o.Value)
	checkVersion(&v)
	form := form{form: v.Form, name: v.Name, problem: v.Problem}
	if v.Object != nil {
		form.keyID = v.Object.KeyID
	}
	g := r.group(form)
	g.add(key, o.Revision)
	if v.Object != nil {
		g.seeds[a.seeds.add(v, key)] = struct{}{}
	}
}

// AddOlder counts a value that was overwritten or deleted.
func (a *Audit) AddOlder(o etcd.Object) {
	r := a.resource(string(o.Key))
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

func (a *Audit) resource(key string) *resource {
	name := stored.Resource(a.opts.Prefix, key)
	r := a.resources[name]
	if r == nil {
		r = &resource{name: name, groups: make(map[form]*group)}
		a.resources[name] = r
	}
	return r
}

// checkVersion makes a value Malformed if its key_id and its ciphertext name
// different key versions: Trousseau refuses it, so kube-apiserver cannot read it.
func checkVersion(v *stored.Value) {
	if v.Object == nil {
		return
	}
	id, err := keyid.Parse(v.Object.KeyID)
	if err != nil {
		return
	}
	if version, ok := vault.CiphertextVersion(v.Object.EncryptedDEKSource); ok && version != id.Version {
		*v = stored.Value{Form: stored.Malformed, Name: v.Name,
			Problem: fmt.Sprintf("its key_id names version %d, but its seed was wrapped by version %d: Trousseau refuses to unwrap it", id.Version, version)}
	}
}

// wrapped returns what a plugin unwraps for an object.
func wrapped(v stored.Value) seed.Wrapped {
	return seed.Wrapped{KeyID: v.Object.KeyID, Ciphertext: v.Object.EncryptedDEKSource, Annotations: v.Object.Annotations}
}

// SPDX-License-Identifier: Apache-2.0

// Package audit counts how the objects in etcd are stored, and answers what an
// operator has to know before a key version is retired: whether anything is still
// in the clear, which key versions are needed, and from which one on.
//
// It sees values as they are stored and never decrypts one. What it says holds
// names of objects, key_ids and hashes, and nothing of a value.
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

// Options say what is looked at.
type Options struct {
	// Prefix is kube-apiserver's --etcd-prefix with a slash after it.
	Prefix string
	// Asked says that only some resources are looked at, by choice: then all of
	// them are meant to be encrypted, and what the others need is not known.
	Asked []string
	// Drill keeps every distinct seed, about a kilobyte each, for [Audit.Seeds].
	// Without it 16 bytes of each are kept.
	Drill bool
}

// Audit is the count. It is not safe for concurrent use. Its size depends on how
// many resources, key_ids and distinct seeds there are, not on how many objects.
type Audit struct {
	opts      Options
	objects   int
	resources map[string]*resource
	seeds     seeds
	// results are what became of the seeds; nil if nobody has tried.
	results []drill.Result
}

// New makes an Audit of nothing yet.
func New(opts Options) *Audit {
	return &Audit{opts: opts, resources: make(map[string]*resource), seeds: newSeeds(opts.Drill)}
}

// Prefixes are where the objects to count are stored.
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

// Add counts an object. It keeps nothing of o but copies of the first few keys.
func (a *Audit) Add(o etcd.Object) {
	a.objects++
	key := string(o.Key)
	r := a.resource(key)
	r.objects++
	v := stored.Parse(o.Value)
	refuse(&v)
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

// AddOlder counts a value that is not the newest of its key, or whose key was
// deleted.
func (a *Audit) AddOlder(o etcd.Object) {
	r := a.resource(string(o.Key))
	r.older++
	if stored.IsClear(o.Value) {
		r.olderClear++
	}
}

// Objects is how many have been counted.
func (a *Audit) Objects() int { return a.objects }

// Seeds are the distinct seeds that objects depend on, if Options.Drill is set.
func (a *Audit) Seeds() []drill.Seed {
	all := make([]drill.Seed, 0, len(a.seeds.kept))
	for _, s := range a.seeds.kept {
		all = append(all, s.Seed)
	}
	return all
}

// Drilled tells what became of Seeds, in their order.
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

// refuse makes a value Malformed that Trousseau made and would refuse to unwrap:
// kube-apiserver cannot read it either.
func refuse(v *stored.Value) {
	if v.Object == nil {
		return
	}
	id, err := keyid.Parse(v.Object.KeyID)
	if err != nil {
		return
	}
	if version, ok := vault.CiphertextVersion(v.Object.EncryptedDEKSource); ok && version != id.Version {
		*v = stored.Value{Form: stored.Malformed, Name: v.Name,
			Problem: fmt.Sprintf("its key_id names version %d, and its seed was wrapped by version %d: Trousseau does not unwrap it", id.Version, version)}
	}
}

// wrapped is what a plugin is asked to unwrap for an object.
func wrapped(v stored.Value) seed.Wrapped {
	return seed.Wrapped{KeyID: v.Object.KeyID, Ciphertext: v.Object.EncryptedDEKSource, Annotations: v.Object.Annotations}
}

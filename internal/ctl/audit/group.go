// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"slices"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
)

// resource counts the objects of one resource, or those outside of the prefixes whose
// keys begin alike.
type resource struct {
	name              string
	objects           int
	groups            map[form]*group
	older, olderClear int
}

// form is what the objects of one group have in common.
type form struct {
	form    stored.Form
	name    string
	keyID   string
	version int // of the transit key, as the wrapped key names it
	problem string
}

// group counts the objects of one resource in one form.
type group struct {
	objects        int
	first          firstKeys
	oldest, newest int64 // revisions
	seeds          map[digest]struct{}
}

// add counts an object and returns how it is stored.
func (r *resource) add(o etcd.Object) stored.Value {
	r.objects++
	v, version := parse(o.Value)
	f := form{form: v.Form, name: v.Name, version: version, problem: v.Problem}
	if v.Object != nil {
		f.keyID = v.Object.KeyID
	}
	g := r.groups[f]
	if g == nil {
		g = &group{seeds: make(map[digest]struct{})}
		r.groups[f] = g
	}
	g.add(string(o.Key), o.Revision)
	if v.Wrapped != nil {
		g.seeds[digestOf(v)] = struct{}{}
	}
	return v
}

func (g *group) add(key string, revision int64) {
	g.objects++
	g.first.add(key)
	if g.oldest == 0 || revision < g.oldest {
		g.oldest = revision
	}
	g.newest = max(g.newest, revision)
}

// firstKeys are the alphabetically first keys, whatever the order of adding.
type firstKeys []string

// few is how many keys a report names as examples.
const few = 5

func (f *firstKeys) add(key string) {
	if len(*f) == few && key >= (*f)[few-1] {
		return
	}
	i, _ := slices.BinarySearch(*f, key)
	*f = slices.Insert(*f, i, key)
	if len(*f) > few {
		*f = (*f)[:few]
	}
}

// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"slices"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
)

// resource counts the objects of one resource.
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
	problem string
}

// group counts the objects of one resource in one form.
type group struct {
	objects        int
	first          firstKeys
	oldest, newest int64 // revisions
	seeds          map[digest]struct{}
}

func (r *resource) group(f form) *group {
	g := r.groups[f]
	if g == nil {
		g = &group{seeds: make(map[digest]struct{})}
		r.groups[f] = g
	}
	return g
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

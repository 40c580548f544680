// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// Progress says how much of a resource is not yet stored as it was written last. It is
// nil if everything is, and without what is malformed.
type Progress struct {
	// To is how the object with the highest revision is stored. While API servers write
	// differently, it is that of any of them.
	To   string `json:"to"`
	Left []Left `json:"left"` // most objects first
}

// Left is the objects of a resource that are stored in one other way.
type Left struct {
	Under   string `json:"under"`
	Objects int    `json:"objects"`
}

// progress expects the groups in the order of a report.
func progress(groups []Group) *Progress {
	var p Progress
	newest := int64(-1)
	objects := make(map[string]int)
	var ways []string
	for _, g := range groups {
		if stored.Form(g.Form) == stored.Malformed {
			continue
		}
		way := g.way()
		if objects[way] == 0 {
			ways = append(ways, way)
		}
		objects[way] += g.Objects
		if g.NewestRevision > newest {
			p.To, newest = way, g.NewestRevision
		}
	}
	for _, way := range ways {
		if way != p.To {
			p.Left = append(p.Left, Left{way, objects[way]})
		}
	}
	if p.Left == nil {
		return nil
	}
	return &p
}

// Objects returns the number of all objects left; 0 if p is nil.
func (p *Progress) Objects() int {
	n := 0
	if p != nil {
		for _, left := range p.Left {
			n += left.Objects
		}
	}
	return n
}

// way says how a group is stored, and under which key.
func (g Group) way() string {
	if stored.Form(g.Form).Clear() {
		return "no key, in the clear"
	}
	way := g.Form + " " + g.Name
	if g.KeyID != "" {
		way += ", " + g.KeyID
	}
	if g.WrappedBy > 0 && g.Version == 0 { // the key_id of a version of ours says it
		way += fmt.Sprintf(" (wrapped by version %d)", g.WrappedBy)
	}
	return way
}

// StillUnder returns a sentence for each way in which objects are stored that is not the
// one in which the resource was written last.
func (r Resource) StillUnder() (all []string) {
	if r.Progress == nil {
		return nil
	}
	for _, left := range r.Progress.Left {
		all = append(all, fmt.Sprintf("%s of %s %s still under %s", text.Number(left.Objects), text.Number(r.Objects), r.Name, left.Under))
	}
	return all
}

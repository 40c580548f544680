// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// bar is a horizontal bar in parts.
type bar struct {
	Label string
	Note  string // at the end of the bar
	Parts []part
}

// part is one part of a bar. A whole bar has the length full.
type part struct {
	X, Width float64
	Kind     kind
	Title    string
}

const full = 1000

// kind is the meaning of a part; Class is its CSS class.
type kind struct{ Class, Text string }

// The kinds, in the order in which they stand in a bar.
var (
	current   = kind{"current", "KMS v2, newest version of its key"}
	older     = kind{"older", "KMS v2, older version"}
	otherKMS  = kind{"otherkms", "KMS v2, another plugin"}
	local     = kind{"local", "local key, or KMS v1"}
	clear     = kind{"clear", "in the clear"}
	malformed = kind{"malformed", "malformed"}
	kinds     = []kind{current, older, otherKMS, local, clear, malformed}
)

// kindOf returns the kind of a group that should be encrypted, given the key_ids of the newest key versions.
func kindOf(g audit.Group, newest map[string]bool) kind {
	switch form := stored.Form(g.Form); {
	case form == stored.KMSv2 && g.Version == 0:
		return otherKMS
	case form == stored.KMSv2 && newest[g.KeyID]:
		return current
	case form == stored.KMSv2:
		return older
	case form == stored.Malformed:
		return malformed
	case form.Clear():
		return clear
	}
	return local
}

// newest returns the key_ids of the newest version of each key.
func newest(r audit.Report) map[string]bool {
	top := make(map[string]int)
	for _, k := range r.KeyIDs {
		key := k.Engine + "/" + k.Key
		top[key] = max(top[key], k.Version)
	}
	found := make(map[string]bool)
	for _, k := range r.KeyIDs {
		if k.Version > 0 && k.Version == top[k.Engine+"/"+k.Key] {
			found[k.KeyID] = true
		}
	}
	return found
}

// storage returns a bar of full length for each resource that should be encrypted,
// divided by kind.
func storage(r audit.Report) []bar {
	newest := newest(r)
	var bars []bar
	for _, res := range r.Resources {
		if res.Objects == 0 || !res.Encrypted {
			continue
		}
		b := bar{Label: res.Name, Note: text.Number(res.Objects)}
		for _, k := range kinds {
			n := 0
			for _, g := range res.Groups {
				if kindOf(g, newest) == k {
					n += g.Objects
				}
			}
			b.add(k, n, res.Objects)
		}
		bars = append(bars, b)
	}
	return bars
}

// legend returns the kinds that storage shows.
func legend(r audit.Report) []kind {
	shown := make(map[kind]bool)
	for _, b := range storage(r) {
		for _, p := range b.Parts {
			shown[p.Kind] = true
		}
	}
	var all []kind
	for _, k := range kinds {
		if shown[k] {
			all = append(all, k)
		}
	}
	return all
}

// keyBars returns a bar for each key_id, its length in proportion to its objects.
func keyBars(r audit.Report) []bar {
	most := 1
	for _, k := range r.KeyIDs {
		most = max(most, k.Objects)
	}
	newest := newest(r)
	var bars []bar
	for _, k := range r.KeyIDs {
		b := bar{Label: k.KeyID, Note: fmt.Sprintf("%s, seeds: %s", text.Number(k.Objects), text.Number(k.Seeds))}
		kind := older
		switch {
		case k.Version == 0:
			kind = otherKMS
		case newest[k.KeyID]:
			kind = current
		}
		b.add(kind, k.Objects, most)
		bars = append(bars, b)
	}
	return bars
}

// drillBar returns a bar of the drill's results; nil without a drill.
func drillBar(r audit.Report) *bar {
	if r.Drill == nil {
		return nil
	}
	b := &bar{Label: "seeds", Note: text.Number(r.Drill.Seeds)}
	b.add(kind{"current", "readable"}, r.Drill.Readable, r.Drill.Seeds)
	b.add(kind{"clear", "lost"}, r.Drill.Lost, r.Drill.Seeds)
	b.add(kind{"local", "unknown"}, r.Drill.Unknown, r.Drill.Seeds)
	return b
}

// least is the smallest visible width of a part.
const least = 4

// add appends n of total to the bar. Each part is wide enough to be seen; if that
// makes the bar too long, its longest part is shortened.
func (b *bar) add(k kind, n, total int) {
	if n == 0 {
		return
	}
	b.Parts = append(b.Parts, part{
		Width: max(least, full*float64(n)/float64(total)),
		Kind:  k,
		Title: fmt.Sprintf("%s: %s", k.Text, text.Number(n)),
	})
	longest, sum := 0, 0.0
	for i, p := range b.Parts {
		if sum += p.Width; p.Width > b.Parts[longest].Width {
			longest = i
		}
	}
	b.Parts[longest].Width -= max(0, sum-full)
	x := 0.0
	for i := range b.Parts {
		b.Parts[i].X = x
		x += b.Parts[i].Width
	}
}

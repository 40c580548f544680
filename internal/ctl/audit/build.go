// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/keyid"
)

// Report tells what has been counted so far, of what source says it was read
// from.
func (a *Audit) Report(source Source) Report {
	source.Prefix, source.Asked = a.opts.Prefix, a.opts.Asked
	r := Report{
		Source:    source,
		Objects:   a.objects,
		Resources: a.reportResources(),
		KeyIDs:    a.reportKeyIDs(),
		Drill:     a.reportDrill(),
	}
	for i := range r.Source.Resumptions {
		r.Source.Resumptions[i].Key = printable(r.Source.Resumptions[i].Key)
	}
	r.TransitKeys = transitKeys(&r)
	r.Findings = findings(&r)
	r.Answers = answers(&r)
	r.Notes = notes(&r)
	return r
}

func (a *Audit) reportResources() []Resource {
	all := make([]Resource, 0, len(a.resources))
	for _, r := range a.resources {
		all = append(all, r.report(a.opts.Asked != nil))
	}
	// What is meant to be encrypted comes first.
	slices.SortFunc(all, func(x, y Resource) int {
		if x.Encrypted != y.Encrypted {
			if x.Encrypted {
				return -1
			}
			return 1
		}
		return cmp.Compare(x.Name, y.Name)
	})
	return all
}

func (r *resource) report(asked bool) Resource {
	out := Resource{Name: printable(r.name), Objects: r.objects, Older: r.older, OlderClear: r.olderClear, Groups: []Group{}}
	out.Encrypted = asked || r.name == "secrets"
	for f, g := range r.groups {
		switch {
		case f.form.Clear():
			out.Clear += g.objects
			continue
		case f.form == stored.Malformed:
			out.Malformed += g.objects
		}
		out.Encrypted = true
	}
	for f, g := range r.groups {
		shown := Group{
			Form: string(f.form), Name: printable(f.name), Problem: f.problem,
			Objects: g.objects, Seeds: len(g.seeds),
			OldestRevision: g.oldest, NewestRevision: g.newest,
		}
		if f.keyID != "" {
			shown.KeyID, shown.KeyIDHash = printable(f.keyID), keyid.Hash(f.keyID)
			if id, err := keyid.Parse(f.keyID); err == nil {
				shown.Version = id.Version
			}
		}
		if f.form == stored.Malformed || out.Encrypted && f.form.Clear() {
			shown.FirstKeys = printables(g.first)
		}
		out.Groups = append(out.Groups, shown)
	}
	slices.SortFunc(out.Groups, func(x, y Group) int {
		return cmp.Or(cmp.Compare(y.Objects, x.Objects), cmp.Compare(x.Form, y.Form), cmp.Compare(x.Name, y.Name),
			cmp.Compare(x.KeyID, y.KeyID), cmp.Compare(x.Problem, y.Problem))
	})
	return out
}

// reportKeyIDs sums over resources: a seed may be shared by several.
func (a *Audit) reportKeyIDs() []KeyID {
	type use struct{ provider, keyID string }
	objects := make(map[use]int)
	distinct := make(map[use]map[digest]struct{})
	for _, r := range a.resources {
		for f, g := range r.groups {
			if f.form != stored.KMSv2 {
				continue
			}
			u := use{f.name, f.keyID}
			objects[u] += g.objects
			if distinct[u] == nil {
				distinct[u] = make(map[digest]struct{}, len(g.seeds))
			}
			maps.Copy(distinct[u], g.seeds)
		}
	}
	all := make([]KeyID, 0, len(objects))
	for u, n := range objects {
		k := KeyID{Provider: printable(u.provider), KeyID: printable(u.keyID), Hash: keyid.Hash(u.keyID), Objects: n, Seeds: len(distinct[u])}
		if id, err := keyid.Parse(u.keyID); err == nil {
			k.Engine, k.Key, k.Version = printable(id.Engine), printable(id.Key), id.Version
			if id.Created != 0 {
				created := time.Unix(id.Created, 0).UTC()
				k.Created = &created
			}
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(x, y KeyID) int {
		return cmp.Or(cmp.Compare(x.Provider, y.Provider), cmp.Compare(x.Engine, y.Engine), cmp.Compare(x.Key, y.Key),
			cmp.Compare(y.Version, x.Version), cmp.Compare(x.KeyID, y.KeyID))
	})
	return all
}

// listed is how many seeds a report lists at most.
const listed = 1000

func (a *Audit) reportDrill() *Drill {
	if a.results == nil {
		return nil
	}
	d := &Drill{Seeds: len(a.results), Failures: []SeedFailure{}}
	for i, result := range a.results {
		k := a.seeds.kept[i]
		switch result.Verdict {
		case "readable":
			d.Readable++
			continue
		case "lost":
			d.Lost++
			d.LostObjects += k.objects
		default:
			d.Unknown++
			d.UnknownObjects += k.objects
		}
		d.Failures = append(d.Failures, SeedFailure{
			Seed: hex.EncodeToString(k.digest[:6]), Provider: printable(k.provider),
			KeyID: printable(k.KeyID), KeyIDHash: keyid.Hash(k.KeyID),
			Verdict: string(result.Verdict), Reason: result.Reason,
			Objects: k.objects, FirstKeys: printables(k.first),
		})
	}
	slices.SortFunc(d.Failures, func(x, y SeedFailure) int {
		return cmp.Or(cmp.Compare(x.Verdict, y.Verdict), cmp.Compare(y.Objects, x.Objects), cmp.Compare(x.Seed, y.Seed))
	})
	d.Failures = d.Failures[:min(len(d.Failures), listed)]
	return d
}

// printable quotes what a terminal might take for something else: whoever writes
// to etcd chooses keys and key_ids.
func printable(s string) string {
	if quoted := strconv.Quote(s); quoted != `"`+s+`"` {
		return quoted
	}
	return s
}

func printables(texts []string) []string {
	out := make([]string, len(texts))
	for i, s := range texts {
		out[i] = printable(s)
	}
	return out
}

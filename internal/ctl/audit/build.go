// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/keyid"
)

// Report returns the result so far. The source says what was read.
func (a *Audit) Report(source Source) Report {
	source.Prefixes, source.Asked = a.opts.Prefixes, a.opts.Asked
	r := Report{
		Source:    source,
		Objects:   a.objects,
		Resources: a.report(a.resources, false),
		Outside:   a.report(a.outside, true),
		KeyIDs:    a.reportKeyIDs(),
		Drill:     a.reportDrill(),
	}
	if a.results != nil {
		r.Unreadable = a.reportUnreadable()
	}
	for i := range r.Source.Resumptions {
		r.Source.Resumptions[i].Key = quoted(r.Source.Resumptions[i].Key)
	}
	r.Unattributed = unattributed(&r)
	r.TransitKeys = transitKeys(&r)
	r.Findings = findings(&r)
	r.Answers = answers(&r)
	r.Notes = notes(&r)
	return r
}

func (a *Audit) report(resources map[string]*resource, outside bool) []Resource {
	all := make([]Resource, 0, len(resources))
	for _, r := range resources {
		all = append(all, r.report(a.opts.Asked != nil, outside))
	}
	// Resources that should be encrypted come first.
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

func (r *resource) report(asked, outside bool) Resource {
	out := Resource{Name: quoted(r.name), Objects: r.objects, Older: r.older, OlderClear: r.olderClear, Groups: []Group{}}
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
			Form: string(f.form), Name: quoted(f.name), WrappedBy: f.version, Problem: f.problem,
			Objects: g.objects, Seeds: len(g.seeds),
			OldestRevision: g.oldest, NewestRevision: g.newest,
		}
		if f.keyID != "" {
			shown.KeyID, shown.KeyIDHash = quoted(f.keyID), keyid.Hash(f.keyID)
			if id, err := keyid.Parse(f.keyID); err == nil {
				shown.Version = id.Version
			}
		}
		if f.form == stored.Malformed || out.Encrypted && f.form.Clear() || outside {
			shown.FirstKeys = allQuoted(g.first)
		}
		out.Groups = append(out.Groups, shown)
	}
	slices.SortFunc(out.Groups, func(x, y Group) int {
		return cmp.Or(cmp.Compare(y.Objects, x.Objects), cmp.Compare(x.Form, y.Form), cmp.Compare(x.Name, y.Name),
			cmp.Compare(x.KeyID, y.KeyID), cmp.Compare(y.WrappedBy, x.WrappedBy), cmp.Compare(x.Problem, y.Problem))
	})
	if out.Encrypted && !outside {
		out.Progress = progress(out.Groups)
	}
	return out
}

// reportKeyIDs sums over resources, because several may share a seed.
func (a *Audit) reportKeyIDs() []KeyID {
	type use struct {
		provider, keyID string
		version         int
	}
	objects := make(map[use]int)
	distinct := make(map[use]map[digest]struct{})
	for _, resources := range []map[string]*resource{a.resources, a.outside} {
		for _, r := range resources {
			for f, g := range r.groups {
				if f.form != stored.KMSv2 {
					continue
				}
				u := use{f.name, f.keyID, f.version}
				objects[u] += g.objects
				if distinct[u] == nil {
					distinct[u] = make(map[digest]struct{}, len(g.seeds))
				}
				maps.Copy(distinct[u], g.seeds)
			}
		}
	}
	all := make([]KeyID, 0, len(objects))
	for u, n := range objects {
		k := KeyID{Provider: quoted(u.provider), KeyID: quoted(u.keyID), Hash: keyid.Hash(u.keyID), WrappedBy: u.version, Objects: n, Seeds: len(distinct[u])}
		if id, err := keyid.Parse(u.keyID); err == nil {
			k.Engine, k.Key, k.Version = quoted(id.Engine), quoted(id.Key), id.Version
			if id.Created != 0 {
				created := time.Unix(id.Created, 0).UTC()
				k.Created = &created
			}
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(x, y KeyID) int {
		return cmp.Or(cmp.Compare(x.Provider, y.Provider), cmp.Compare(x.Engine, y.Engine), cmp.Compare(x.Key, y.Key),
			cmp.Compare(y.Version, x.Version), cmp.Compare(x.KeyID, y.KeyID), cmp.Compare(y.WrappedBy, x.WrappedBy))
	})
	return all
}

// listed is the maximum number of seeds that a report lists.
const listed = 1000

func (a *Audit) reportDrill() *Drill {
	if a.results == nil {
		return nil
	}
	d := &Drill{Seeds: len(a.results), Failures: []SeedFailure{}}
	for i, result := range a.results {
		k := a.seeds.kept[i]
		switch result.Verdict {
		case drill.Readable:
			d.Readable++
			continue
		case drill.Lost:
			d.Lost++
			d.LostObjects += k.objects
		default:
			d.Unknown++
			d.UnknownObjects += k.objects
		}
		d.Failures = append(d.Failures, SeedFailure{
			Seed: hex.EncodeToString(k.digest[:6]), Provider: quoted(k.provider),
			KeyID: quoted(k.KeyID), KeyIDHash: hashOf(k.KeyID),
			Verdict: string(result.Verdict), Reason: result.Reason,
			Objects: k.objects, FirstKeys: allQuoted(k.first),
		})
	}
	slices.SortFunc(d.Failures, func(x, y SeedFailure) int {
		return cmp.Or(cmp.Compare(x.Verdict, y.Verdict), cmp.Compare(y.Objects, x.Objects), cmp.Compare(x.Seed, y.Seed))
	})
	d.Failures = d.Failures[:min(len(d.Failures), listed)]
	return d
}

// hashOf returns the hash of a key_id; "" if there is none, as with KMS v1.
func hashOf(keyID string) string {
	if keyID == "" {
		return ""
	}
	return keyid.Hash(keyID)
}

// quoted quotes s if a terminal could interpret part of it: anyone who can write to
// etcd chooses keys and key_ids.
func quoted(s string) string {
	if quoted := strconv.Quote(s); quoted != `"`+s+`"` {
		return quoted
	}
	return s
}

func allQuoted(texts []string) []string {
	out := make([]string, len(texts))
	for i, s := range texts {
		out[i] = quoted(s)
	}
	return out
}

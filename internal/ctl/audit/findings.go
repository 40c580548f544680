// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// findings lists the problems:
//
//   - an object in the clear, of a resource that is meant to be encrypted
//     (see [Resource]);
//   - a value of any resource that kube-apiserver could not read with any key;
//   - after a drill, a seed that was not unwrapped, for whatever reason.
func findings(r *Report) []Finding {
	all := []Finding{}
	for _, res := range r.Resources {
		if res.Encrypted && res.Clear > 0 {
			all = append(all, Finding{Kind: FindingClear, Objects: res.Clear,
				Text:      fmt.Sprintf("%s of %s %s are in the clear", text.Number(res.Clear), text.Number(res.Objects), res.Name),
				FirstKeys: res.keysOf(func(g Group) bool { return stored.Form(g.Form).Clear() })})
		}
		for _, g := range res.Groups {
			if stored.Form(g.Form) == stored.Malformed {
				all = append(all, Finding{Kind: FindingMalformed, Objects: g.Objects,
					Text:      fmt.Sprintf("%s of %s cannot be read with any key: %s", text.Count(g.Objects, "object"), res.Name, g.Problem),
					FirstKeys: g.FirstKeys})
			}
		}
	}
	return append(all, drillFindings(r.Drill)...)
}

// drillFindings groups seeds that failed for the same reason.
func drillFindings(d *Drill) []Finding {
	if d == nil {
		return nil
	}
	type cause struct{ verdict, keyID, reason string }
	sums := make(map[cause]*Finding)
	counts := make(map[*Finding]int)
	var order []cause
	for _, f := range d.Failures {
		c := cause{f.Verdict, f.KeyID, f.Reason}
		if sums[c] == nil {
			sums[c] = &Finding{Kind: FindingUnknown}
			if f.Verdict == "lost" {
				sums[c].Kind = FindingLost
			}
			order = append(order, c)
		}
		sum := sums[c]
		counts[sum]++
		sum.Objects += f.Objects
		for _, key := range f.FirstKeys {
			(*firstKeys)(&sum.FirstKeys).add(key)
		}
	}
	var all []Finding
	for _, c := range order {
		sum := sums[c]
		what := "can no longer be decrypted"
		if sum.Kind == FindingUnknown {
			what = "could not be verified"
		}
		sum.Text = fmt.Sprintf("%s under %s of key_id %s %s: %s", text.Count(sum.Objects, "object"), text.Count(counts[sum], "seed"), c.keyID, what, c.reason)
		all = append(all, *sum)
	}
	if rest := d.Lost + d.Unknown - len(d.Failures); rest > 0 {
		all = append(all, Finding{Kind: FindingUnknown, FirstKeys: []string{},
			Text: fmt.Sprintf("%s more could not be unwrapped and are not listed", text.Count(rest, "seed"))})
	}
	return all
}

// keysOf returns the first keys of the groups that match.
func (r Resource) keysOf(match func(Group) bool) []string {
	var keys firstKeys
	for _, g := range r.Groups {
		if match(g) {
			for _, key := range g.FirstKeys {
				keys.add(key)
			}
		}
	}
	return keys
}

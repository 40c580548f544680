// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"strings"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// The ids of the findings.
const (
	// InTheClear: an object in the clear, of a resource that is meant to be encrypted
	// (see [Resource]).
	InTheClear = "in-the-clear"
	// Malformed: a value that kube-apiserver could not read with any key.
	Malformed = "malformed"
	// Lost: after a drill, a seed that can no longer be unwrapped.
	Lost = "lost"
	// NotVerified: after a drill, a seed that was not unwrapped for another reason.
	NotVerified = "not-verified"
	// OutsidePrefixes: encrypted objects that the audit counts only for the key
	// versions that they need. A warning.
	OutsidePrefixes = "outside-prefixes"
)

func findings(r *Report) []finding.Finding {
	var all []finding.Finding
	for _, res := range r.Resources {
		if res.Encrypted && res.Clear > 0 {
			all = append(all, finding.Finding{ID: InTheClear, Severity: finding.Error, Subject: res.Name, Objects: res.Clear,
				Text:     fmt.Sprintf("%s of %s %s are in the clear", text.Number(res.Clear), text.Number(res.Objects), res.Name),
				Do:       "run trousseauctl reencrypt, then audit again",
				Examples: res.keysOf(func(g Group) bool { return stored.Form(g.Form).Clear() })})
		}
		for _, g := range res.Groups {
			if stored.Form(g.Form) == stored.Malformed {
				all = append(all, finding.Finding{ID: Malformed, Severity: finding.Error, Subject: res.Name, Objects: g.Objects,
					Text:     fmt.Sprintf("%s of %s cannot be read with any key: %s", text.Count(g.Objects, "object"), res.Name, g.Problem),
					Do:       "restore them from a backup of etcd, or delete them: --verify prints how",
					Examples: g.FirstKeys})
			}
		}
	}
	all = append(all, drillFindings(r.Drill)...)
	for _, res := range r.Outside {
		all = append(all, finding.Finding{ID: OutsidePrefixes, Severity: finding.Warning, Subject: res.Name, Objects: res.Objects,
			Text:     fmt.Sprintf("%s under %s, outside of %s: counted here only for the key versions that they need", text.Are(res.Objects, "encrypted object"), res.Name, strings.Join(r.Source.Prefixes, " and ")),
			Do:       "add --prefix " + strings.TrimSuffix(res.Name, "/") + " to audit them too",
			Examples: res.keysOf(func(Group) bool { return true })})
	}
	return all
}

// drillFindings groups seeds that failed for the same reason.
func drillFindings(d *Drill) []finding.Finding {
	if d == nil {
		return nil
	}
	type cause struct{ verdict, keyID, reason string }
	sums := make(map[cause]*finding.Finding)
	counts := make(map[*finding.Finding]int)
	var order []cause
	for _, f := range d.Failures {
		c := cause{f.Verdict, f.KeyID, f.Reason}
		if sums[c] == nil {
			sums[c] = &finding.Finding{ID: NotVerified, Severity: finding.Error, Subject: f.KeyID}
			if f.Verdict == string(drill.Lost) {
				sums[c].ID = Lost
			}
			order = append(order, c)
		}
		sum := sums[c]
		counts[sum]++
		sum.Objects += f.Objects
		for _, key := range f.FirstKeys {
			(*firstKeys)(&sum.Examples).add(key)
		}
	}
	var all []finding.Finding
	for _, c := range order {
		sum := sums[c]
		under := fmt.Sprintf("under %s of key_id %s", text.Count(counts[sum], "seed"), c.keyID)
		if c.keyID == "" {
			under = fmt.Sprintf("stored by KMS v1 under %s", text.Count(counts[sum], "DEK"))
		}
		what := "can no longer be decrypted"
		sum.Do = "restore the key or its version; if it is gone for good, delete the objects unread"
		if sum.ID == NotVerified {
			what, sum.Do = "could not be verified", ""
		}
		sum.Text = fmt.Sprintf("%s %s %s: %s", text.Count(sum.Objects, "object"), under, what, c.reason)
		all = append(all, *sum)
	}
	if rest := d.Lost + d.Unknown - len(d.Failures); rest > 0 {
		all = append(all, finding.Finding{ID: NotVerified, Severity: finding.Error,
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

// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"strconv"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
)

// findings are what is not as it should be:
//
//   - an object in the clear, of a resource that is meant to be encrypted
//     (see [Resource]);
//   - a value that kube-apiserver could not read with any key, of any resource;
//   - after a drill, a seed that could not be unwrapped, or of which it could not
//     be found out.
func findings(r *Report) []Finding {
	all := []Finding{}
	for _, res := range r.Resources {
		if res.Encrypted && res.Clear > 0 {
			all = append(all, Finding{Kind: FindingClear, Objects: res.Clear,
				Text:      fmt.Sprintf("%s of %s %s in the clear", number(res.Clear), number(res.Objects), res.Name),
				FirstKeys: res.keysOf(func(g Group) bool { return stored.Form(g.Form).Clear() })})
		}
		for _, g := range res.Groups {
			if stored.Form(g.Form) == stored.Malformed {
				all = append(all, Finding{Kind: FindingMalformed, Objects: g.Objects,
					Text:      fmt.Sprintf("%s of %s cannot be read with any key: %s", objects(g.Objects), res.Name, g.Problem),
					FirstKeys: g.FirstKeys})
			}
		}
	}
	return append(all, drillFindings(r.Drill)...)
}

// drillFindings put seeds together that failed for the same reason.
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
		what := "can no longer be read"
		if sum.Kind == FindingUnknown {
			what = "could not be verified"
		}
		sum.Text = fmt.Sprintf("%s under %s of key_id %s %s: %s", objects(sum.Objects), plural(counts[sum], "seed"), c.keyID, what, c.reason)
		all = append(all, *sum)
	}
	if rest := d.Lost + d.Unknown - len(d.Failures); rest > 0 {
		all = append(all, Finding{Kind: FindingUnknown, FirstKeys: []string{},
			Text: fmt.Sprintf("%s more that could not be unwrapped are not listed", plural(rest, "seed"))})
	}
	return all
}

// keysOf are the first keys of the groups for which which says yes.
func (r Resource) keysOf(which func(Group) bool) []string {
	var keys firstKeys
	for _, g := range r.Groups {
		if which(g) {
			for _, key := range g.FirstKeys {
				keys.add(key)
			}
		}
	}
	return keys
}

// number writes 1234567 as 1,234,567.
func number(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return number(n) + " " + noun + "s"
}

func objects(n int) string { return plural(n, "object") }

// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"strings"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
)

// The questions, in the order in which they are answered.
const (
	QuestionClear    = "Is anything still in plaintext?"
	QuestionVersions = "Which key versions are still needed?"
	QuestionMinimum  = "What may min_decryption_version safely become?"
)

func answers(r *Report) []Answer {
	return []Answer{inTheClear(r), versions(r), minimum(r)}
}

func inTheClear(r *Report) Answer {
	a := Answer{Question: QuestionClear, Verdict: "no"}
	var encrypted, left, others []string
	total := 0
	for _, res := range r.Resources {
		switch {
		case res.Encrypted && res.Clear > 0:
			a.Verdict = "yes"
			left = append(left, fmt.Sprintf("%s of %s %s", number(res.Clear), number(res.Objects), res.Name))
		case res.Encrypted && res.Objects > 0:
			encrypted = append(encrypted, res.Name)
			total += res.Objects
		case res.Objects > 0:
			others = append(others, res.Name)
		}
	}
	if len(left) > 0 {
		a.Text = append(a.Text, "Yes: "+strings.Join(left, ", ")+".",
			"What was written before encryption was set up stays as it is until it is written again: have that done with trousseauctl reencrypt, then audit again. If it is new, a kube-apiserver writes without the EncryptionConfiguration, or identity stands first in it.")
	}
	if len(encrypted) > 0 {
		text := fmt.Sprintf("all %s of %s are encrypted", objects(total), list(encrypted))
		if len(left) > 0 {
			a.Text = append(a.Text, "However, "+text+".")
		} else {
			a.Text = append(a.Text, "No: "+text+".")
		}
	}
	if len(left)+len(encrypted) == 0 {
		a.Verdict = "yes"
		a.Text = append(a.Text, "Yes: nothing at all is encrypted.")
	}
	if local := localKeys(r); local != "" {
		a.Text = append(a.Text, local)
	}
	if len(others) > 0 {
		a.Text = append(a.Text, fmt.Sprintf("Nothing of %s is encrypted, and nothing says that it should be: name what should be with --resource to have it checked.", list(others)))
	}
	older := 0
	for _, res := range r.Resources {
		if res.Encrypted {
			older += res.OlderClear
		}
	}
	if older > 0 {
		a.Text = append(a.Text, fmt.Sprintf("The file also holds %s of them in the clear that have been overwritten or deleted since. They go when etcd is compacted; what its pages held is gone only after a defragmentation. Keep this file as if it were plaintext.", plural(older, "value")))
	}
	return a
}

// localKeys warns of keys that are in a file beside the API server.
func localKeys(r *Report) string {
	n := 0
	var names []string
	known := make(map[string]bool)
	for _, res := range r.Resources {
		for _, g := range res.Groups {
			switch stored.Form(g.Form) {
			case stored.AESCBC, stored.AESGCM, stored.Secretbox:
				n += g.Objects
				if name := g.Form + " " + g.Name; !known[name] {
					known[name] = true
					names = append(names, name)
				}
			}
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s encrypted with a key that stands in the EncryptionConfiguration itself (%s): keep that key in it until they have been re-encrypted (trousseauctl reencrypt).", verb(n), list(names))
}

func verb(n int) string {
	if n == 1 {
		return "1 object is"
	}
	return objects(n) + " are"
}

func versions(r *Report) Answer {
	a := Answer{Question: QuestionVersions, Verdict: "none"}
	var short []string
	for _, key := range r.TransitKeys {
		var each []string
		for _, v := range key.Versions {
			short = append(short, fmt.Sprintf("%s/%s v%d", key.Engine, key.Key, v.Version))
			each = append(each, fmt.Sprintf("version %d by %s under %s", v.Version, objects(v.Objects), plural(v.Seeds, "seed")))
		}
		a.Text = append(a.Text, fmt.Sprintf("Of %s/%s: %s.", key.Engine, key.Key, strings.Join(each, "; ")))
	}
	foreign, seeds := 0, 0
	for _, k := range r.KeyIDs {
		if k.Key == "" {
			foreign += k.Objects
			seeds += k.Seeds
		}
	}
	if foreign > 0 {
		a.Text = append(a.Text, fmt.Sprintf("%s, with %s, under key_ids that are not Trousseau's: the plugin that made them has to say which of its keys they are.", capital(verb(foreign)), plural(seeds, "seed")))
	}
	if v1 := count(r, stored.KMSv1); v1 > 0 {
		a.Text = append(a.Text, capital(verb(v1))+" stored by KMS v1, which does not say which key it needs.")
	}
	if len(short) > 0 {
		a.Verdict = strings.Join(short, ", ")
	}
	if len(a.Text) == 0 {
		a.Text = []string{"None: nothing is encrypted by KMS v2."}
	}
	if len(short) > 0 && r.Source.Asked != nil {
		a.Text = append(a.Text, "Only "+list(r.Source.Asked)+" was looked at: other resources may need more.")
	}
	return a
}

func minimum(r *Report) Answer {
	a := Answer{Question: QuestionMinimum, Verdict: "unknown"}
	var short []string
	for _, key := range r.TransitKeys {
		name := key.Engine + "/" + key.Key
		if key.Unknown != "" {
			short = append(short, name+": unknown")
			a.Text = append(a.Text, fmt.Sprintf("%s: that cannot be told: %s.", name, key.Unknown))
			continue
		}
		short = append(short, fmt.Sprintf("%s: %d", name, key.MayBecome))
		oldest := key.Versions[len(key.Versions)-1]
		text := fmt.Sprintf("%s: %d, and no more. %s still under version %d", name, key.MayBecome, capital(verb(oldest.Objects)), oldest.Version)
		if newest := key.Versions[0]; newest.Version > oldest.Version {
			text += fmt.Sprintf("; once they are re-encrypted, it may become %d", key.Versions[len(key.Versions)-2].Version)
		}
		a.Text = append(a.Text, text+".")
	}
	if len(short) == 0 {
		a.Text = []string{"That cannot be told: nothing is under a key_id of Trousseau's."}
		return a
	}
	a.Verdict = strings.Join(short, ", ")
	return withCautions(a, r)
}

// withCautions adds what this audit cannot see.
func withCautions(a Answer, r *Report) Answer {
	known := false
	for _, key := range r.TransitKeys {
		known = known || key.Unknown == ""
	}
	if !known {
		return a
	}
	a.Text = append(a.Text,
		"Before it is raised, think of the backups of etcd: restoring one takes the versions that were in use when it was made, so audit the oldest that you would restore (--snapshot).",
		"Think of other clusters: one whose key_ids name the same key needs its own versions of it.")
	if r.Source.Kind == "snapshot" {
		a.Text = append(a.Text, "This is what the snapshot holds: audit the running etcd too.")
	} else {
		a.Text = append(a.Text, "A kube-apiserver that has not noticed the newest version yet goes on writing under an older one: see that all nodes agree (trousseauctl status), and audit again right before.")
	}
	a.Text = append(a.Text, "min_decryption_version can be lowered again if something was forgotten; trimming a key (min_available_version) cannot be undone.")
	return a
}

func count(r *Report, form stored.Form) int {
	n := 0
	for _, res := range r.Resources {
		for _, g := range res.Groups {
			if stored.Form(g.Form) == form {
				n += g.Objects
			}
		}
	}
	return n
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func list(names []string) string {
	const most = 12
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

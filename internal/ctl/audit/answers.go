// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// The questions, in the order in which they are answered.
const (
	QuestionClear    = "Is anything still in plaintext?"
	QuestionVersions = "Which key versions are still needed?"
	QuestionMinimum  = "How far can min_decryption_version be raised?"
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
			left = append(left, fmt.Sprintf("%s of %s %s", text.Number(res.Clear), text.Number(res.Objects), res.Name))
		case res.Encrypted && res.Objects > 0:
			encrypted = append(encrypted, res.Name)
			total += res.Objects
		case res.Objects > 0:
			others = append(others, res.Name)
		}
	}
	if len(left) > 0 {
		a.Text = append(a.Text, "Yes: "+strings.Join(left, ", ")+".",
			"Objects that were written before encryption was enabled stay in the clear until they are written again: run trousseauctl reencrypt, then audit again. If these objects are new, a kube-apiserver has no EncryptionConfiguration, or identity is the first provider in it.")
	}
	if len(encrypted) > 0 {
		intro := "No: "
		if len(left) > 0 {
			intro = "However, "
		}
		a.Text = append(a.Text, fmt.Sprintf("%sall %s of %s are encrypted.", intro, text.Count(total, "object"), text.List(encrypted)))
	}
	if len(left)+len(encrypted) == 0 {
		a.Verdict = "yes"
		a.Text = append(a.Text, "Yes: nothing is encrypted.")
	}
	if local := localKeys(r); local != "" {
		a.Text = append(a.Text, local)
	}
	if len(others) > 0 {
		a.Text = append(a.Text, fmt.Sprintf("Not encrypted, and not expected to be: %s. To check a resource that should be encrypted, name it with --resource.", text.List(others)))
	}
	older := 0
	for _, res := range r.Resources {
		if res.Encrypted {
			older += res.OlderClear
		}
	}
	if older > 0 {
		a.Text = append(a.Text, fmt.Sprintf("The file also holds %s in the clear that were overwritten or deleted later. Compacting etcd removes them, but only a defragmentation erases them from the file. Protect this file like plaintext.", text.Count(older, "old value")))
	}
	return a
}

// localKeys warns about keys that are stored in the EncryptionConfiguration file.
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
	return fmt.Sprintf("%s encrypted with a key in the EncryptionConfiguration itself (%s). Keep that key there until you have run trousseauctl reencrypt.", text.Are(n, "object"), text.List(names))
}

func versions(r *Report) Answer {
	a := Answer{Question: QuestionVersions, Verdict: "none"}
	var short []string
	for _, key := range r.TransitKeys {
		var each []string
		for _, v := range key.Versions {
			short = append(short, fmt.Sprintf("%s/%s v%d", key.Engine, key.Key, v.Version))
			each = append(each, fmt.Sprintf("version %d for %s under %s", v.Version, text.Count(v.Objects, "object"), text.Count(v.Seeds, "seed")))
		}
		a.Text = append(a.Text, fmt.Sprintf("%s/%s: %s.", key.Engine, key.Key, strings.Join(each, "; ")))
	}
	if len(r.Unattributed) > 0 {
		var each []string
		for _, v := range r.Unattributed {
			short = append(short, fmt.Sprintf("unrecorded key v%d", v.Version))
			each = append(each, fmt.Sprintf("version %d for %s", v.Version, text.Count(v.Objects, "object")))
		}
		a.Text = append(a.Text, fmt.Sprintf("A transit key that is not recorded, because KMS v1 or another plugin wrote the objects: %s.", strings.Join(each, "; ")))
	}
	opaque := 0
	for _, res := range r.everything() {
		for _, g := range res.Groups {
			if form := stored.Form(g.Form); (form == stored.KMSv1 || form == stored.KMSv2) && g.WrappedBy == 0 {
				opaque += g.Objects
			}
		}
	}
	if opaque > 0 {
		a.Text = append(a.Text, text.Are(opaque, "object")+" under a wrapped key that names no version of a transit key: ask the plugin that wrote them which of its keys they need.")
	}
	if len(short) > 0 {
		a.Verdict = strings.Join(short, ", ")
	}
	if len(a.Text) == 0 {
		a.Text = []string{"None: nothing is encrypted by KMS."}
	}
	if len(short) > 0 && r.Source.Asked != nil {
		a.Text = append(a.Text, "Only "+text.List(r.Source.Asked)+" was audited: other resources may need more versions.")
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
			a.Text = append(a.Text, fmt.Sprintf("%s: unknown, because %s.", name, key.Unknown))
			continue
		}
		short = append(short, fmt.Sprintf("%s: %d", name, key.MayBecome))
		a.Text = append(a.Text, fmt.Sprintf("%s: to %d, no further. %s", name, key.MayBecome, limit(key.Versions, r.Unattributed)))
	}
	if len(short) > 0 {
		a.Verdict = strings.Join(short, ", ")
		return withCautions(a, r)
	}
	line := "Unknown, because no object is under a key_id of Trousseau."
	if lowest := oldest(r.Unattributed); lowest > 0 {
		line += fmt.Sprintf(" Do not raise it above %d for any key that KMS v1 or another plugin uses.", lowest)
	}
	a.Text = []string{line}
	return a
}

// limit says which objects keep the minimum of a key from being raised, and to what it
// could be raised without them. Any key may be that of others.
func limit(own, others []TransitVersion) string {
	var by []string
	next := 0
	lowest := oldest(own, others)
	for i, versions := range [][]TransitVersion{own, others} {
		for _, v := range versions {
			switch {
			case v.Version > lowest:
				if next == 0 || v.Version < next {
					next = v.Version
				}
			case i == 0:
				by = append(by, fmt.Sprintf("%s still under version %d", text.Are(v.Objects, "object"), v.Version))
			default:
				by = append(by, fmt.Sprintf("%s under version %d of a key that KMS v1 and other plugins do not record, and which may be this one", text.Are(v.Objects, "object"), v.Version))
			}
		}
	}
	line := strings.Join(by, ". ")
	if next > 0 {
		line += fmt.Sprintf("; once they are re-encrypted, you can raise it to %d", next)
	}
	return line + "."
}

// withCautions adds what to consider that this audit cannot see.
func withCautions(a Answer, r *Report) Answer {
	known := false
	for _, key := range r.TransitKeys {
		known = known || key.Unknown == ""
	}
	if !known {
		return a
	}
	a.Text = append(a.Text,
		"Check your etcd backups first: a restored backup needs the key versions of its time. Audit the oldest backup that you would restore (--snapshot).",
		"Check other clusters that use the same key, and other etcds of this cluster (kube-apiserver's --etcd-servers-overrides): they may need older versions.")
	if r.Source.Kind == "snapshot" {
		a.Text = append(a.Text, "This result is about the snapshot: audit the running etcd too.")
	} else {
		a.Text = append(a.Text, "A kube-apiserver that has not noticed the newest version still writes under an older one. Check that all nodes agree (trousseauctl status), and audit again right before you raise it.")
	}
	a.Text = append(a.Text, "You can lower min_decryption_version again. You cannot undo trimming a key (min_available_version).")
	return a
}

// count counts the audited objects of some forms.
func count(r *Report, forms ...stored.Form) int {
	n := 0
	for _, res := range r.Resources {
		for _, g := range res.Groups {
			if slices.Contains(forms, stored.Form(g.Form)) {
				n += g.Objects
			}
		}
	}
	return n
}

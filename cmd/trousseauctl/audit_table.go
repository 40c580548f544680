// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// printAudit writes a report as a table, the most important part at the end.
func printAudit(w io.Writer, r audit.Report, paint painter) error {
	var b strings.Builder
	printSource(&b, r)
	printResources(&b, r, paint)
	printStoredKeyIDs(&b, r)
	printDrill(&b, r)
	for _, a := range r.Answers {
		fmt.Fprintf(&b, "\n%s\n", a.Question)
		for _, answer := range a.Text {
			text.Paragraph(&b, "  ", answer)
		}
	}
	if len(r.Notes) > 0 {
		b.WriteString("\nNotes\n")
		for _, note := range r.Notes {
			text.Paragraph(&b, "  ", note)
		}
	}
	printFindings(&b, r, paint)
	printUnreadable(&b, r)
	_, err := io.WriteString(w, b.String())
	return err
}

func printFindings(b *strings.Builder, r audit.Report, paint painter) {
	heading := paint(bad, "Findings")
	if !finding.Problem(r.Findings) {
		fmt.Fprintf(b, "\n%s\n", paint(good, "No findings."))
		heading = paint(doubtful, "Warnings")
	}
	if len(r.Findings) > 0 {
		fmt.Fprintf(b, "\n%s\n", heading)
	}
	for _, f := range r.Findings {
		line := f.Text
		if f.Do != "" {
			line += "; " + f.Do
		}
		text.Paragraph(b, "  ", line)
		printKeys(b, f.Examples, f.Objects)
	}
}

// printUnreadable writes the commands that delete what cannot be read.
func printUnreadable(b *strings.Builder, r audit.Report) {
	if len(r.Unreadable) == 0 {
		return
	}
	b.WriteString("\nDeleting what cannot be read\n")
	text.Paragraph(b, "  ", "If a backup has the key, restore it instead: then nothing is lost. Each of these calls deletes an object for good. kube-apiserver skips its finalizers, its preconditions and the admission of the deletion, so that what depends on the object may break. "+
		"kube-apiserver 1.37 accepts the call from a user with the verbs delete and unsafe-delete-ignore-read-errors, and refuses it for an object that it can read. To try it, add &dryRun=All inside the quotes.")
	for _, u := range r.Unreadable {
		if u.Remove == "" {
			text.Paragraph(b, "      ", "kube-apiserver deletes no such object unread. Delete its key from etcd: "+u.Key)
			continue
		}
		fmt.Fprintf(b, "      %s\n", u.Remove)
	}
	if total := r.UnreadableObjects(); total > len(r.Unreadable) {
		text.Paragraph(b, "      ", fmt.Sprintf("and %d more: audit again after these", total-len(r.Unreadable)))
	}
}

func printSource(b *strings.Builder, r audit.Report) {
	what := "etcd at "
	if r.Source.Kind == "snapshot" {
		what = "snapshot "
	}
	line := fmt.Sprintf("%s%s, revision %d", what, strings.Join(r.Source.Names, ", "), r.Source.Revision)
	if r.Source.Checksum != "" {
		line += fmt.Sprintf(", sha256 %s", r.Source.Checksum)
	}
	text.Paragraph(b, "", line+fmt.Sprintf(": %s under %s", text.Count(r.Objects, "object"), strings.Join(r.Source.Prefixes, " and ")))
}

func printResources(b *strings.Builder, r audit.Report, paint painter) {
	for _, res := range r.Resources {
		if !res.Encrypted || res.Objects == 0 {
			continue
		}
		fmt.Fprintf(b, "\n%s: %s\n", res.Name, text.Count(res.Objects, "object"))
		for _, g := range res.Groups {
			fmt.Fprintf(b, "%9d\t%s\n", g.Objects, describe(g, paint))
		}
		if res.Progress != nil {
			text.Paragraph(b, "  ", "Written last under "+res.Progress.To+":")
			for _, line := range res.StillUnder() {
				text.Paragraph(b, "  ", line)
			}
		}
	}
	heading := "\nnot encrypted\n"
	for _, res := range r.Resources {
		if res.Encrypted || res.Objects == 0 {
			continue
		}
		b.WriteString(heading)
		heading = ""
		var forms []string
		for _, g := range res.Groups {
			forms = append(forms, g.Form)
		}
		fmt.Fprintf(b, "%9d\t%s (%s)\n", res.Objects, res.Name, strings.Join(forms, ", "))
	}
}

func describe(g audit.Group, paint painter) string {
	switch form := stored.Form(g.Form); {
	case form.Clear():
		return paint(bad, "IN THE CLEAR") + " (" + g.Form + ")"
	case form == stored.Malformed:
		return paint(bad, "MALFORMED") + ": " + g.Problem
	case form == stored.KMSv2 && g.Version > 0:
		return fmt.Sprintf("kms v2 %s, %s under %s", g.Name, text.Count(g.Seeds, "seed"), g.KeyID)
	case form == stored.KMSv2:
		return fmt.Sprintf("kms v2 %s, %s under %s%s", g.Name, text.Count(g.Seeds, "seed"), g.KeyID, wrappedBy(g))
	case form == stored.KMSv1:
		return fmt.Sprintf("kms v1 %s, %s%s", g.Name, text.Count(g.Seeds, "DEK"), wrappedBy(g))
	}
	return g.Form + " " + g.Name
}

// wrappedBy says which version of an unknown transit key a group needs.
func wrappedBy(g audit.Group) string {
	if g.WrappedBy == 0 {
		return ""
	}
	return fmt.Sprintf(", wrapped by version %d of a transit key", g.WrappedBy)
}

func printStoredKeyIDs(b *strings.Builder, r audit.Report) {
	if len(r.KeyIDs) == 0 {
		return
	}
	b.WriteString("\nkey_ids\n")
	for _, k := range r.KeyIDs {
		made := ""
		if k.Created != nil {
			made = ", created " + k.Created.Format(time.DateOnly)
		}
		fmt.Fprintf(b, "  %s\n      %s\n", k.KeyID, k.Hash)
		text.Paragraph(b, "      ", fmt.Sprintf("%s by provider %s, %s%s", text.Count(k.Objects, "object"), k.Provider, text.Count(k.Seeds, "seed"), made))
	}
}

func printDrill(b *strings.Builder, r audit.Report) {
	if d := r.Drill; d != nil {
		text.Paragraph(b, "\n", fmt.Sprintf("%s unwrapped: %d readable, %d lost (%s), %d unknown (%s)",
			text.Count(d.Seeds, "seed"), d.Readable, d.Lost, text.Count(d.LostObjects, "object"), d.Unknown, text.Count(d.UnknownObjects, "object")))
	}
}

func printKeys(b *strings.Builder, keys []string, objects int) {
	for _, key := range keys {
		fmt.Fprintf(b, "      %s\n", key)
	}
	if more := objects - len(keys); more > 0 && len(keys) > 0 {
		fmt.Fprintf(b, "      and %d more\n", more)
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
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
	if len(r.Findings) == 0 {
		b.WriteString("\n" + paint(good, "No findings.") + "\n")
	} else {
		b.WriteString("\n" + paint(bad, "Findings") + "\n")
		for _, f := range r.Findings {
			text.Paragraph(&b, "  ", f.Text)
			printKeys(&b, f.FirstKeys, f.Objects)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
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
	text.Paragraph(b, "", line+fmt.Sprintf(": %s under %s", text.Count(r.Objects, "object"), r.Source.Prefix))
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
	case form == stored.KMSv2:
		return fmt.Sprintf("kms v2 %s, %s under %s", g.Name, text.Count(g.Seeds, "seed"), g.KeyID)
	}
	return g.Form + " " + g.Name
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

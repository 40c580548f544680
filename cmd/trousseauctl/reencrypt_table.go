// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/reencrypt"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// printReencrypted writes the result as a table.
func printReencrypted(w io.Writer, r reencrypted, findings []finding.Finding, paint painter) error {
	var b strings.Builder
	if r.KeyIDHash != "" { // the run has begun
		text.Line(&b, "", fmt.Sprintf("key_id %s, on %s", r.KeyIDHash, strings.Join(r.APIServers, ", ")))
	}
	if r.Resumed {
		text.Paragraph(&b, "", "This run resumed an earlier one; the counts include both.")
	}
	if r.DryRun {
		b.WriteString("Dry run: nothing was written.\n")
	}
	for _, res := range r.Resources {
		printReencryptedResource(&b, res, r.DryRun)
	}
	told := ""
	for _, f := range findings {
		say := f.Text + " " + f.Do
		if f.ID == reencrypt.Refused { // those are listed
			say = f.Do
		}
		if say != told {
			b.WriteByte('\n')
			text.Paragraph(&b, "", say)
		}
		told = say
	}
	if _, err := io.WriteString(w, b.String()); err != nil || r.Audit == nil {
		return err
	}
	fmt.Fprintf(w, "\nAudit: %s not under the current key_id\n\n", text.Count(r.Elsewhere, "object"))
	return printAudit(w, *r.Audit, paint)
}

func printReencryptedResource(b *strings.Builder, res reencrypt.Resource, dryRun bool) {
	fmt.Fprintf(b, "\n%s: %s", res.Name, text.Count(res.Objects, "object"))
	if res.Provider != "" {
		fmt.Fprintf(b, ", written by provider %s", res.Provider)
	}
	b.WriteByte('\n')
	if res.Migration != "" {
		text.Line(b, "           ", "migrated by kube-controller-manager: "+res.Migration)
	}
	if res.Note != "" {
		text.Paragraph(b, "           ", res.Note)
	}
	switch failed := len(res.Failures); {
	case dryRun:
		fmt.Fprintf(b, "%9d\twould be patched\n%9d\twould fail\n", res.Objects-failed, failed)
	case res.Migration == "" || res.Objects > 0:
		fmt.Fprintf(b, "%9d\trewritten\n%9d\talready current\n%9d\tdeleted during the run\n%9d\tfailed\n", res.Rewritten, res.Current, res.Gone, failed)
	}
	for _, f := range res.Failures {
		text.Paragraph(b, "           ", strings.TrimPrefix(f.Namespace+"/"+f.Name, "/")+": "+f.Reason)
	}
}

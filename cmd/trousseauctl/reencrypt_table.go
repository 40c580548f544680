// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// printReencrypted writes for people what was done.
func printReencrypted(w io.Writer, r reencrypted, paint painter) error {
	var b strings.Builder
	fmt.Fprintf(&b, "key_id %s, on %s\n", r.KeyIDHash, strings.Join(r.APIServers, ", "))
	if r.Resumed {
		b.WriteString("An earlier run is counted too, which this one has gone on with.\n")
	}
	for _, res := range r.Resources {
		fmt.Fprintf(&b, "\n%s: %s\n", res.Name, text.Count(res.Objects, "object"))
		fmt.Fprintf(&b, "%9d  rewritten\n%9d  were current\n%9d  deleted meanwhile\n%9d  not rewritten\n",
			res.Rewritten, res.Current, res.Gone, len(res.Failures))
		for _, failure := range res.Failures {
			text.Paragraph(&b, "           ", strings.TrimPrefix(failure.Namespace+"/"+failure.Name, "/")+": "+failure.Reason)
		}
	}
	if r.Failed() > 0 {
		b.WriteString("\nRemove the reasons and run it again: with --state it then tries just these.\n")
	}
	if r.Audit != nil {
		fmt.Fprintf(&b, "\nAudit: %s under another key_id, or under none\n\n", text.Count(r.Elsewhere, "object"))
		if _, err := io.WriteString(w, b.String()); err != nil {
			return err
		}
		return printAudit(w, *r.Audit, paint)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// printReencrypted writes the result as a table.
func printReencrypted(w io.Writer, r reencrypted, paint painter) error {
	var b strings.Builder
	fmt.Fprintf(&b, "key_id %s, on %s\n", r.KeyIDHash, strings.Join(r.APIServers, ", "))
	if r.Resumed {
		b.WriteString("This run resumed an earlier one; the counts include both.\n")
	}
	for _, res := range r.Resources {
		fmt.Fprintf(&b, "\n%s: %s\n", res.Name, text.Count(res.Objects, "object"))
		fmt.Fprintf(&b, "%9d  rewritten\n%9d  already current\n%9d  deleted during the run\n%9d  failed\n",
			res.Rewritten, res.Current, res.Gone, len(res.Failures))
		for _, failure := range res.Failures {
			text.Paragraph(&b, "           ", strings.TrimPrefix(failure.Namespace+"/"+failure.Name, "/")+": "+failure.Reason)
		}
	}
	if r.Failed() > 0 {
		b.WriteString("\nFix the causes and run this command again. With --state it retries only these objects.\n")
	}
	if r.Audit != nil {
		fmt.Fprintf(&b, "\nAudit: %s not under the current key_id\n\n", text.Count(r.Elsewhere, "object"))
		if _, err := io.WriteString(w, b.String()); err != nil {
			return err
		}
		return printAudit(w, *r.Audit, paint)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

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
	text.Paragraph(&b, "", fmt.Sprintf("key_id %s, on %s", r.KeyIDHash, strings.Join(r.APIServers, ", ")))
	if r.Resumed {
		text.Paragraph(&b, "", "This run resumed an earlier one; the counts include both.")
	}
	for _, res := range r.Resources {
		fmt.Fprintf(&b, "\n%s: %s\n", res.Name, text.Count(res.Objects, "object"))
		fmt.Fprintf(&b, "%9d\trewritten\n%9d\talready current\n%9d\tdeleted during the run\n%9d\tfailed\n",
			res.Rewritten, res.Current, res.Gone, len(res.Failures))
		for _, failure := range res.Failures {
			text.Paragraph(&b, "           ", strings.TrimPrefix(failure.Namespace+"/"+failure.Name, "/")+": "+failure.Reason)
		}
	}
	if r.Failed() > 0 {
		text.Paragraph(&b, "\n", "Fix the causes and run this command again. With --state it retries only these objects.")
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

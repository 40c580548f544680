// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// The functions of this file say what is in a report, in few words, for the row of a
// cluster. A report comes as what its JSON holds.

func statusRow(report any) string {
	r := fields[struct {
		Nodes  []any
		KeyIDs []struct {
			Name    string
			Version int
		}
	}](report)
	if len(r.KeyIDs) == 0 {
		return text.Count(len(r.Nodes), "node")
	}
	return fmt.Sprintf("%s, %s version %d", text.Count(len(r.Nodes), "node"), r.KeyIDs[0].Name, r.KeyIDs[0].Version)
}

func auditRow(report any) string {
	r := fields[struct {
		Objects int
		KeyIDs  []any
	}](report)
	return text.Count(r.Objects, "object") + ", " + text.Count(len(r.KeyIDs), "key_id")
}

func doctorRow(report any) string {
	return fmt.Sprintf("%d checks are ok", fields[struct{ OK int }](report).OK)
}

func rotateTokenRow(report any) string {
	r := fields[struct {
		Nodes              []any
		DryRun, OldRevoked bool
	}](report)
	switch nodes := text.Count(len(r.Nodes), "node"); {
	case r.DryRun:
		return "nothing was written; the token can be rotated on " + nodes
	case r.OldRevoked:
		return nodes + " with the new token, and the old one is revoked"
	default:
		return nodes + " with the new token; there was no old one to revoke"
	}
}

func fields[T any](report any) (values T) {
	document, err := json.Marshal(report)
	if err == nil {
		_ = json.Unmarshal(document, &values) // a row can do without
	}
	return values
}

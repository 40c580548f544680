// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// nodeWidth is the longest node name that shares a line with its columns.
const nodeWidth = 21

// printStatus writes a report as a table.
func printStatus(w io.Writer, r fleet.Report, paint painter) error {
	_, err := io.WriteString(w, statusText(r, r.Nodes, paint))
	return err
}

// statusText is a report that shows only these of its nodes.
func statusText(r fleet.Report, shown []fleet.Answer, paint painter) string {
	var b strings.Builder
	row := func(health mood, cells ...string) {
		cells[1] = paint(health, cells[1])
		b.WriteString(strings.Join(cells, "\t") + "\n")
	}
	row(neutral, "NODE", "HEALTH", "KEY_ID", "VERSION", "GEN", "RELOAD", "TOKEN", "PROOF")
	for _, a := range shown {
		name := a.Node
		if utf8.RuneCountInString(name) > nodeWidth {
			b.WriteString(name + "\n")
			name = ""
		}
		row(moodOf(a), append([]string{name, a.Health()}, cells(a, r.Time)...)...)
		for _, f := range r.Findings {
			if f.Subject == a.Node {
				text.Paragraph(&b, "  ", advice(f))
			}
		}
	}
	if more := len(r.Nodes) - len(shown); more > 0 {
		fmt.Fprintf(&b, "… and %s\n", text.Count(more, "more node"))
	}
	b.WriteString("\n")
	printKeyIDs(&b, r)
	printBuilds(&b, r)
	if p := r.Plugin; p != nil && p.Error == "" {
		fmt.Fprintf(&b, "socket  %s\n        %s, key_id %s\n", p.Endpoint, p.Healthz, p.KeyID)
	}
	for _, f := range r.Findings {
		if !slices.ContainsFunc(r.Nodes, func(a fleet.Answer) bool { return a.Node == f.Subject }) {
			b.WriteString("\n")
			text.Paragraph(&b, "", advice(f))
		}
	}
	return b.String()
}

func moodOf(a fleet.Answer) mood {
	if a.Health() == "healthy" {
		return good
	}
	return bad
}

// cells returns the columns after the health.
func cells(a fleet.Answer, now time.Time) []string {
	if a.State == nil {
		return make([]string, 6)
	}
	s := a.State
	keyID, version := "-", "-"
	if s.Key.Hash != "" {
		digest := strings.TrimPrefix(s.Key.Hash, "sha256:")
		keyID, version = digest[:min(12, len(digest))], fmt.Sprintf("v%d", s.Key.Version)
		if !s.Key.Created.IsZero() {
			version += ", " + text.Age(now.Sub(s.Key.Created))
		}
	}
	reload := "failed"
	if s.Reload.InUse {
		reload = "ok"
	}
	if s.Reload.Adopted.IsZero() {
		reload = "none yet"
	} else if s.Reload.InUse {
		reload += ", " + text.Age(now.Sub(s.Reload.Adopted))
	}
	token, proof := "-", "-"
	if left := s.Token.Expires.Sub(now); !s.Token.Expires.IsZero() {
		token = "expired"
		if left > 0 {
			token = text.Age(left)
			if s.Token.KeptBy == fleet.Trousseau {
				token += ", renewed"
			} else {
				token += ", expires"
			}
		}
	}
	if !s.Proven.IsZero() {
		proof = text.Age(now.Sub(s.Proven)) + " ago"
	}
	return []string{keyID, version, fmt.Sprint(s.Generation), reload, token, proof}
}

// advice is a finding's text, and what to do.
func advice(f finding.Finding) string {
	if f.Do == "" {
		return f.Text
	}
	return strings.TrimSuffix(f.Text, ".") + ". " + f.Do
}

func printKeyIDs(b *strings.Builder, r fleet.Report) {
	for _, k := range r.KeyIDs {
		line := fmt.Sprintf("%s version %d", k.Name, k.Version)
		if !k.Created.IsZero() {
			line += ", created " + k.Created.Format(time.RFC3339)
		}
		text.Hanging(b, "key_id  ", k.Hash+" "+line+on(k.Nodes, len(r.Nodes)))
	}
}

func printBuilds(b *strings.Builder, r fleet.Report) {
	var builds []fleet.Build
	nodes := map[fleet.Build][]string{}
	for _, a := range r.Nodes {
		if a.State == nil {
			continue
		}
		if nodes[a.State.Build] == nil {
			builds = append(builds, a.State.Build)
		}
		nodes[a.State.Build] = append(nodes[a.State.Build], a.Node)
	}
	for _, build := range builds {
		text.Hanging(b, "build   ", fmt.Sprintf("trousseau %s (revision %.12s, %s)%s", build.Version, build.Revision, build.Go, on(nodes[build], len(r.Nodes))))
	}
}

// on says which nodes: all of them, some by name, or nothing if there is only one.
func on(nodes []string, all int) string {
	switch {
	case all == 1:
		return ""
	case len(nodes) == all && all == 2:
		return ", on both nodes"
	case len(nodes) == all:
		return fmt.Sprintf(", on all %d nodes", all)
	}
	return ", on " + text.List(nodes)
}

// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Since compares r with an earlier report of the same cluster, and returns a line for
// each node that has changed. Values that move all the time, such as the time of
// the last proof or the expiry of the token, do not count.
func (r Report) Since(before Report) []string {
	if r.Err != nil {
		if before.Err != nil && before.Err.Error() == r.Err.Error() {
			return nil
		}
		return []string{r.Err.Error()}
	}
	var changes []string
	earlier := make(map[string]Answer)
	for _, a := range before.Nodes {
		earlier[a.Node] = a
	}
	for _, a := range r.Nodes {
		was, known := earlier[a.Node]
		delete(earlier, a.Node)
		if !known {
			changes = append(changes, a.Node+": "+a.Line())
		} else if parts := a.since(was); len(parts) > 0 {
			changes = append(changes, a.Node+": "+strings.Join(parts, ", "))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(earlier)) {
		changes = append(changes, name+": no longer a node")
	}
	if r.Plugin != nil && before.Plugin != nil {
		if was, is := before.Plugin.summary(), r.Plugin.summary(); was != is {
			changes = append(changes, fmt.Sprintf("%s: %s, was %s", r.Plugin.Endpoint, is, was))
		}
	}
	switch was, is := len(before.KeyIDs) > 1, len(r.KeyIDs) > 1; {
	case is && !was:
		changes = append(changes, "the nodes disagree on key_id")
	case was && !is:
		changes = append(changes, "the nodes no longer disagree on key_id")
	}
	return changes
}

func (a Answer) since(before Answer) (parts []string) {
	if a.Health() != before.Health() {
		parts = append(parts, a.Line())
	}
	if a.State == nil || before.State == nil {
		return parts
	}
	was, is := *before.State, *a.State
	if is.Key.Hash != was.Key.Hash {
		parts = append(parts, "key_id "+is.Key.Hash+", "+is.Key.String())
	}
	if is.Generation != was.Generation {
		parts = append(parts, fmt.Sprintf("generation %d, was %d", is.Generation, was.Generation))
	}
	if is.Reload.InUse != was.Reload.InUse || is.Reload.Class != was.Reload.Class {
		parts = append(parts, "reload "+is.Reload.String())
	}
	if is.Token.AccessorHash != was.Token.AccessorHash {
		parts = append(parts, "token changed")
	}
	if is.Token.KeptBy != was.Token.KeptBy && is.Token.KeptBy != "" {
		parts = append(parts, "token is "+is.Token.KeptBy.String())
	}
	if is.Build != was.Build {
		parts = append(parts, "build "+is.Build.Version)
	}
	return parts
}

// Line is the node's health on one line, with the reasons.
func (a Answer) Line() string {
	reasons := []string{}
	if a.State != nil {
		reasons = a.State.Reasons
	} else if a.Unreachable != "" {
		reasons = []string{a.Unreachable}
	}
	return strings.TrimSuffix(a.Health()+": "+strings.Join(reasons, "; "), ": ")
}

// String names the version.
func (k Key) String() string {
	if k.Hash == "" {
		return "no key"
	}
	return fmt.Sprintf("%s version %d", k.Name, k.Version)
}

// String is ok, or the class of the failure, or "none yet".
func (r Reload) String() string {
	switch {
	case r.InUse:
		return "ok"
	case r.Class != "":
		return "failed: " + r.Class
	}
	return "none yet"
}

func (p Plugin) summary() string {
	if p.Error != "" {
		return p.Error
	}
	return p.Healthz + " " + p.KeyID
}

// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import "strings"

// groupResource is a resource, or * for all, of a group, which is "" for the core
// group or * for all.
type groupResource struct {
	resource, group string
}

var everything = groupResource{"*", "*"}

// parseResource reads an item of resources (ParseGroupResource in
// apimachinery/pkg/runtime/schema).
func parseResource(s string) groupResource {
	resource, group, _ := strings.Cut(s, ".")
	return groupResource{resource, group}
}

func (g groupResource) String() string {
	if g.group == "" && g.resource != "*" {
		return g.resource
	}
	return g.resource + "." + g.group
}

// within returns the wildcards that g falls under.
func (g groupResource) within() []groupResource {
	return []groupResource{{"*", g.group}, everything}
}

func parseResources(names []string) []groupResource {
	all := make([]groupResource, len(names))
	for i, n := range names {
		all[i] = parseResource(n)
	}
	return all
}

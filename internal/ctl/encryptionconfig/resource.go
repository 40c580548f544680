// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/kubernetes/scheme"
)

// groupResource is a resource, or * for all, of a group, which is "" for the core
// group or * for all.
type groupResource struct {
	resource, group string
}

var everything = groupResource{"*", "*"}

// builtIn are the groups of each resource that Kubernetes itself has.
var builtIn = sync.OnceValue(func() map[string][]string {
	all := map[string][]string{}
	for kind := range scheme.Scheme.AllKnownTypes() {
		resource, _ := meta.UnsafeGuessKindToResource(kind)
		if name := resource.Resource; resource.Group != "extensions" && !slices.Contains(all[name], resource.Group) {
			all[name] = append(all[name], resource.Group)
		}
	}
	return all
})

// withoutGroup says what is wrong with a name that has no group and is not in the core
// group: kube-apiserver accepts it, and encrypts nothing for it. It is "" for others.
func withoutGroup(name string) string {
	groups := slices.Sorted(slices.Values(builtIn()[name]))
	switch {
	case strings.Contains(name, "."), slices.Contains(groups, ""):
		return ""
	case len(groups) > 0:
		return fmt.Sprintf("%q has a group; write %s.%s", name, name, strings.Join(groups, " or "+name+"."))
	}
	return fmt.Sprintf("%q is not in the core group; write its group as well, such as %s.example.com", name, name)
}

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

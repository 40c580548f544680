// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Rules is a policy: path → Vault capabilities ("create", "read", "update", "delete", "list", "sudo", "deny"). A
// path may end in "*" (any continuation) and have "+" as a segment (any one segment). It is relative to the
// namespace of the token, without a leading slash.
type Rules map[string][]string

// policy is a stored policy. It is immutable.
type policy struct {
	rules Rules
	text  string // as it was written
}

func newPolicy(rules Rules) policy { return policy{rules: copyRules(rules), text: rules.format()} }

func defaultPolicy() Rules {
	return Rules{
		"auth/token/lookup-self": {"read"},
		"auth/token/renew-self":  {"update"},
		"auth/token/revoke-self": {"update"},
		"sys/capabilities-self":  {"update"},
	}
}

// TransitPolicy returns the minimal policy for a KMS with these keys of one mount: update on encrypt and decrypt,
// read on the key, and the paths for its own token.
func TransitPolicy(mount string, keys ...string) Rules {
	rules := Rules{
		"auth/token/lookup-self": {"read"},
		"auth/token/renew-self":  {"update"},
		"sys/capabilities-self":  {"update"},
	}
	for _, key := range keys {
		rules[join(mount, "encrypt/"+key)] = []string{"update"}
		rules[join(mount, "decrypt/"+key)] = []string{"update"}
		rules[join(mount, "keys/"+key)] = []string{"read"}
	}
	return rules
}

// SetPolicy creates or replaces a policy. It takes effect at once for existing tokens. "default" may be replaced;
// "root" allows everything and cannot be replaced.
func (s *Server) SetPolicy(name string, rules Rules) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.store.policies[name] = newPolicy(rules)
}

// ownPolicy stores a policy for a single token or role and returns its name.
func (st *store) ownPolicy(of string, rules Rules) string {
	name := "own-" + of
	st.policies[name] = newPolicy(rules)
	return name
}

func copyRules(rules Rules) Rules {
	c := maps.Clone(rules)
	for path, capabilities := range c {
		c[path] = slices.Clone(capabilities)
	}
	return c
}

// within reports whether a namespace equals outer or is inside it.
func within(outer, namespace string) bool {
	return outer == "" || namespace == outer || strings.HasPrefix(namespace, outer+"/")
}

// allows reports whether the token's policies grant a capability on a path relative to the root namespace.
func (st *store) allows(t *token, full, capability string) bool {
	granted := st.capabilities(t, full)
	return slices.Contains(granted, "root") || slices.Contains(granted, capability)
}

// capabilities returns the token's capabilities on a path relative to the root namespace, sorted; never empty.
func (st *store) capabilities(t *token, full string) []string {
	if slices.Contains(t.policies, "root") {
		return []string{"root"}
	}
	path := strings.TrimPrefix(full, t.namespace+"/")
	if t.namespace == "" {
		path = full
	}
	// Only the most specific path counts, merged over all policies that contain it.
	best := ""
	var granted []string
	for _, name := range t.policies {
		for rule, capabilities := range st.policies[name].rules {
			switch {
			case !matches(rule, path) || rule != best && best != "" && !moreSpecific(rule, best):
			case rule == best:
				granted = append(granted, capabilities...)
			default:
				best, granted = rule, slices.Clone(capabilities)
			}
		}
	}
	if len(granted) == 0 || slices.Contains(granted, "deny") {
		return []string{"deny"}
	}
	slices.Sort(granted)
	return slices.Compact(granted)
}

func matches(rule, path string) bool {
	prefix, open := strings.CutSuffix(rule, "*")
	if !strings.Contains(rule, "+") {
		return path == prefix || open && strings.HasPrefix(path, prefix)
	}
	want, got := strings.Split(prefix, "/"), strings.Split(path, "/")
	if len(got) < len(want) || !open && len(got) != len(want) {
		return false
	}
	for i, segment := range want {
		last := i == len(want)-1
		if segment != "+" && segment != got[i] && !(open && last && strings.HasPrefix(got[i], segment)) {
			return false
		}
	}
	return true
}

// moreSpecific orders rules that match the same path as Vault does (developer.hashicorp.com/vault/docs/concepts/policies,
// "policy paths"): later first wildcard, no glob at the end, fewer "+", longer, lexically greater.
func moreSpecific(a, b string) bool {
	if x, y := firstWildcard(a), firstWildcard(b); x != y {
		return x > y
	}
	if x, y := strings.HasSuffix(a, "*"), strings.HasSuffix(b, "*"); x != y {
		return y
	}
	if x, y := strings.Count(a, "+"), strings.Count(b, "+"); x != y {
		return x < y
	}
	if len(a) != len(b) {
		return len(a) > len(b)
	}
	return a > b
}

func firstWildcard(rule string) int {
	if i := strings.IndexAny(rule, "+*"); i >= 0 {
		return i
	}
	// A path without wildcards takes precedence.
	return len(rule) + 1
}

// capabilitiesSelf is sys/capabilities-self.
func (st *store) capabilitiesSelf(req *request, t *token) reply {
	paths := req.fields.list("paths")
	if len(paths) == 0 {
		paths = req.fields.list("path")
	}
	if len(paths) == 0 {
		return refuse(http.StatusBadRequest, "paths must be supplied")
	}
	if t.uses < 0 {
		// This request was the token's last use.
		return refuse(http.StatusBadRequest, wrapped("invalid token"))
	}
	data := map[string]any{}
	for _, path := range paths {
		data[path] = st.capabilities(t, join(req.namespace, path))
	}
	if len(paths) == 1 {
		data["capabilities"] = data[paths[0]]
	}
	return reply{data: data, mount: "system"}
}

// readPolicy is a read of sys/policies/acl/<name>. It includes policies set from Go code.
func (st *store) readPolicy(req *request) reply {
	name := strings.ToLower(req.name)
	found, ok := st.policies[name]
	if !ok && name != "root" {
		return refuse(http.StatusNotFound)
	}
	return reply{data: map[string]any{"name": name, "policy": found.text}, mount: "system"}
}

// writePolicy is a write of sys/policies/acl/<name>. It takes effect at once for existing tokens.
func (st *store) writePolicy(req *request) reply {
	name, text := strings.ToLower(req.name), req.fields.text("policy")
	if text == "" {
		return refuse(http.StatusBadRequest, "'policy' parameter not supplied or empty")
	}
	rules, err := parseRules(text)
	switch {
	case err != nil:
		return refuse(http.StatusBadRequest, "failed to parse policy: "+err.Error())
	case name == "root":
		return refuse(http.StatusBadRequest, `cannot update "root" policy`)
	}
	st.policies[name] = policy{rules: rules, text: text}
	if name != req.name {
		return reply{warnings: []string{"policy name was converted to " + name}, mount: "system"}
	}
	return reply{}
}

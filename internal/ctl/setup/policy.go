// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl"
	"github.com/hashicorp/hcl/hcl/ast"
)

// PolicyText returns the minimal policy of Trousseau: encrypt with the first key, and
// decrypt with and read every key.
func (o Options) PolicyText() string { return withRules("", o.pluginRules()) }

func (o Options) pluginRules() []rule {
	prefix := strings.TrimPrefix(strings.Trim(o.Namespace, "/")+"/"+o.TransitMount, "/")
	rules := []rule{{path: prefix + "/encrypt/" + o.Keys[0], capabilities: []string{"update"}}}
	for _, key := range o.Keys {
		rules = append(rules, rule{path: prefix + "/decrypt/" + key, capabilities: []string{"update"}},
			rule{path: prefix + "/keys/" + key, capabilities: []string{"read"}})
	}
	return rules
}

func (o Options) agentRules() []rule {
	return []rule{{path: o.KVMount + "/data/" + o.KVPath, capabilities: []string{"read"}}}
}

// policies plans the policies.
func (p *planner) policies(ctx context.Context) error {
	o := p.options
	if err := p.policy(ctx, o.Policy, o.pluginRules()); err != nil || o.Login {
		return err
	}
	return p.policy(ctx, o.AgentPolicy, o.agentRules())
}

// policy plans a policy that grants what is needed, and everything that it grants
// already: another cluster may need that. Only --remove takes something away.
func (p *planner) policy(ctx context.Context, name string, needed []rule) error {
	path, what := "sys/policies/acl/"+name, "policy "+name
	found, err := p.vault.Read(ctx, path)
	if err != nil {
		return err
	}
	was := text(found["policy"])
	has, err := parsePolicy(was)
	if err != nil {
		return fmt.Errorf("%s is not one that this program can parse: give another name for it", what)
	}
	inJSON := strings.HasPrefix(strings.TrimSpace(was), "{")
	is, kept, details := was, []rule(nil), []string(nil)
	for _, r := range slices.Backward(has) { // so that the positions of the others stay
		switch extra := r.beyond(needed); {
		case extra && p.removes(r.path):
			if !inJSON {
				is = is[:r.from] + is[r.to:]
			}
			details = append(details, "- "+r.line())
		case extra:
			p.warn("policy-grants-more", what, "it also has "+r.line(), "if no cluster needs it, run this with --remove "+quote(r.path)+
				"; if another cluster needs it, give each cluster its own names with --cluster")
			fallthrough
		default:
			kept = append(kept, r)
		}
	}
	var added []rule
	for _, n := range needed {
		granted, exact := granted(kept, n.path)
		switch {
		case slices.Contains(granted, "deny"):
			return fmt.Errorf("%s denies %s, which is needed: take that rule away with --remove, or give another name for the policy", what, n.path)
		case slices.Contains(granted, n.capabilities[0]):
			continue
		case !exact:
			// In Vault only the most specific path counts: what a wildcard grants must
			// be in the new rule too.
			n.capabilities = append(granted, n.capabilities...)
		}
		added = append(added, n)
		details = append(details, "+ "+n.line())
	}
	is = withRules(is, added)
	switch {
	case len(details) == 0:
		p.keep(what)
		return nil
	case inJSON:
		return fmt.Errorf("%s is written in JSON, which this program does not change: give another name for it, or change it yourself: %s", what, strings.Join(details, "; "))
	}
	action := Change
	if found == nil {
		action = Create
	}
	p.write(action, what, details, "vault policy write "+quote(name)+" - <<'EOF'\n"+is+"EOF", path, map[string]any{"policy": is})
	return nil
}

// rule grants capabilities on a path.
type rule struct {
	path         string
	capabilities []string
	from, to     int // its place in the text
}

func (r rule) line() string {
	return fmt.Sprintf("path %q: %s", r.path, strings.Join(r.capabilities, ", "))
}

// beyond reports whether r grants more than the needed rules.
func (r rule) beyond(needed []rule) bool {
	return slices.ContainsFunc(r.capabilities, func(capability string) bool {
		return !slices.ContainsFunc(needed, func(n rule) bool { return n.path == r.path && slices.Contains(n.capabilities, capability) })
	})
}

// withRules appends rules to the text of a policy.
func withRules(text string, rules []rule) string {
	var blocks []string
	if text = strings.TrimSpace(text); text != "" {
		blocks = append(blocks, text+"\n")
	}
	for _, r := range rules {
		blocks = append(blocks, fmt.Sprintf("path %q {\n  capabilities = [\"%s\"]\n}\n", r.path, strings.Join(r.capabilities, `", "`)))
	}
	return strings.Join(blocks, "\n")
}

// levels are the capabilities behind the old field "policy" (vault/policy.go).
var levels = map[string][]string{
	"deny":  {"deny"},
	"read":  {"read", "list"},
	"write": {"create", "read", "update", "delete", "list"},
	"sudo":  {"create", "read", "update", "delete", "list", "sudo"},
}

// parsePolicy reads the rules of a policy as Vault does (parsePaths in vault/policy.go).
func parsePolicy(text string) (rules []rule, err error) {
	file, err := hcl.ParseString(text)
	if err != nil {
		return nil, err
	}
	list, ok := file.Node.(*ast.ObjectList)
	if !ok {
		return nil, errors.New("no rules")
	}
	for _, item := range list.Items {
		if word, _ := item.Keys[0].Token.Value().(string); !strings.EqualFold(word, "path") {
			continue
		}
		body, isObject := item.Val.(*ast.ObjectType)
		if !isObject || len(item.Keys) != 2 {
			return nil, errors.New("a path without rules")
		}
		var said struct {
			Policy       string
			Capabilities []string
		}
		if err := hcl.DecodeObject(&said, body); err != nil {
			return nil, err
		}
		path, _ := item.Keys[1].Token.Value().(string)
		rules = append(rules, rule{
			path: strings.TrimPrefix(path, "/"), capabilities: append(said.Capabilities, levels[said.Policy]...),
			from: item.Pos().Offset, to: body.Rbrace.Offset + 1,
		})
	}
	return rules, nil
}

// granted returns what rules grant on a path: that of the most specific rules that
// match it. Exact says that these have no wildcard.
func granted(rules []rule, path string) (capabilities []string, exact bool) {
	best := ""
	for _, r := range rules {
		if matches(r.path, path) && (best == "" || specific(r.path, best) > 0) {
			best = r.path
		}
	}
	for _, r := range rules {
		if r.path == best {
			capabilities = append(capabilities, r.capabilities...)
		}
	}
	slices.Sort(capabilities)
	return slices.Compact(capabilities), best == path
}

// matches reports whether a rule's path, with + for a segment and a last * for any
// rest, is that of path.
func matches(pattern, path string) bool {
	open := ""
	if rest, glob := strings.CutSuffix(pattern, "*"); glob {
		pattern, open = rest, ".*"
	}
	segments := strings.Split(pattern, "/")
	for i, s := range segments {
		if segments[i] = regexp.QuoteMeta(s); s == "+" {
			segments[i] = "[^/]+"
		}
	}
	return regexp.MustCompile("^" + strings.Join(segments, "/") + open + "$").MatchString(path)
}

// specific compares the paths of two rules as Vault does, in its documentation of
// policies.
func specific(a, b string) int {
	wildcard := func(path string) int {
		if i := strings.IndexAny(path, "+*"); i >= 0 {
			return i
		}
		return math.MaxInt
	}
	open := func(path string) int { return len(path) - len(strings.TrimSuffix(path, "*")) }
	return cmp.Or(cmp.Compare(wildcard(a), wildcard(b)), cmp.Compare(open(b), open(a)),
		cmp.Compare(strings.Count(b, "+"), strings.Count(a, "+")), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

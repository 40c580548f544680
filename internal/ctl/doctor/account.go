// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultview"
)

// account looks at the token: how trousseau comes by it, how long it lives, and
// what it may do.
func (e *examination) account(ctx context.Context) {
	c := e.config.Vault.Credential
	e.check(ctx, "login", "", func(ctx context.Context) outcome {
		switch c.Method {
		case config.TokenGiven:
			return ok("none: the token is given")
		case config.Proxied:
			return ok("none: the proxy at the address adds its token")
		}
		if err := e.vault.Login(ctx, c); err != nil {
			return fail("See the role and what it is bound to, and whether the "+credentialName(c.Method)+" is still valid.", "auth/%s/login: %s", c.Path, reason(err))
		}
		return ok("by auth/%s/login", c.Path)
	}, "vault")

	var t vaultview.Token
	e.check(ctx, "token", "", func(ctx context.Context) (o outcome) {
		t, o = e.token(ctx)
		return o
	}, "login")
	e.check(ctx, "token-life", "", func(context.Context) outcome { return life(t, e.vault.Minted(), c.Method) }, "token")
	e.check(ctx, "token-policies", "", func(context.Context) outcome {
		all := slices.Sorted(slices.Values(append(slices.Clone(t.Policies), t.Identity...)))
		if slices.Contains(all, "root") {
			return warn("Make a token of the policy trousseau alone: trousseauctl policy prints it.", "it is a root token, which may do everything")
		}
		return ok("%s", joined(slices.Compact(all)))
	}, "token")
	e.policy(ctx)
}

func credentialName(m config.Method) string {
	switch m {
	case config.AppRole:
		return "secret ID"
	case config.Certificate:
		return "client certificate"
	}
	return "JWT"
}

func (e *examination) token(ctx context.Context) (vaultview.Token, outcome) {
	t, err := e.vault.LookUpSelf(ctx)
	switch {
	case vaultview.Denied(err):
		return t, fail("Write a new one, or see that its policies let it read auth/token/lookup-self: default does.", "Vault does not know the token, or it may not look itself up (403)")
	case err != nil:
		return t, fail("See whether the namespace is right, and Vault's log.", "auth/token/lookup-self: %s", reason(err))
	case t.Uses > 0:
		return t, fail("Make a token without num_uses: each call of trousseau, and this one, uses it up.", "the token is good for %s, and then no more", plural(t.Uses, "call"))
	}
	return t, ok("a %s token", t.Type)
}

// life judges who keeps a token alive.
func life(t vaultview.Token, minted bool, method config.Method) outcome {
	if t.Expires == nil {
		return ok("it never dies")
	}
	left := time.Duration(t.TTL) * time.Second
	switch {
	case method == config.Proxied:
		return ok("%s left; the proxy keeps it alive", span(left))
	case minted:
		return ok("a login gives %s; trousseau logs in again", span(left))
	case !t.Renewable:
		return warn("Make it renewable, with a period: vault token create -orphan -period=…; or see that somebody writes a new one in time.", "it dies in %s, and cannot be renewed", span(left))
	case t.ExplicitMaxTTL > 0:
		return warn("See that somebody writes a new one in time, or make one without explicit_max_ttl.", "%s left; trousseau renews it, but not for longer than %s in all", span(left), span(time.Duration(t.ExplicitMaxTTL)*time.Second))
	case t.Period == 0:
		return warn("Make one with a period, or see that somebody writes a new one in time.", "%s left; trousseau renews it, but no longer than Vault's maximum TTL: it has no period", span(left))
	}
	return ok("%s left; trousseau renews it", span(left))
}

// need is what the daemon cannot do without on a path.
type need struct {
	path, capability string
	own              bool // on the token itself
	lacking          outcome
}

func (e *examination) needs() []need {
	v := e.config.Vault
	line := func(path, capability string) string {
		return fmt.Sprintf("Add to its policy: path %q { capabilities = [%q] }", path, capability)
	}
	var all []need
	for i, key := range v.KeyNames {
		if path := v.TransitPath + "/encrypt/" + key; i == 0 {
			all = append(all, need{path: path, capability: "update", lacking: fail(line(path, "update"), "it may not: no new seed can be encrypted")})
		}
		path := v.TransitPath + "/decrypt/" + key
		all = append(all, need{path: path, capability: "update", lacking: fail(line(path, "update"), "it may not: what this key has encrypted cannot be read")})
		if path := v.TransitPath + "/keys/" + key; i == 0 {
			all = append(all, need{path: path, capability: "read", lacking: warn(line(path, "read"), "it may not: a key that was deleted and made anew is not told from the one before")})
		}
	}
	if v.Credential.Method == config.TokenGiven {
		const path = "auth/token/renew-self"
		all = append(all, need{path: path, capability: "update", own: true, lacking: warn(line(path, "update"), "it may not: trousseau cannot keep its token alive")})
	}
	return all
}

// excess is what no daemon needs, and which would do harm in wrong hands.
func (e *examination) excess() (paths []string) {
	v := e.config.Vault
	for _, key := range v.KeyNames {
		for _, what := range []string{"keys/%s", "keys/%s/config", "keys/%s/rotate", "keys/%s/trim", "export/encryption-key/%s", "backup/%s", "encrypt/%s"} {
			paths = append(paths, v.TransitPath+"/"+fmt.Sprintf(what, key))
		}
	}
	return append(paths, v.TransitPath+"/keys")
}

// harmless is what trousseau's own policy grants, or may.
func harmless(capability string) bool {
	return slices.Contains([]string{"deny", "read", "update"}, capability)
}

func (e *examination) policy(ctx context.Context) {
	var granted map[string][]string
	e.check(ctx, "policy", "", func(ctx context.Context) outcome {
		needs := e.needs()
		paths, own := e.excess(), []string{}
		for _, n := range needs {
			if n.own {
				own = append(own, n.path)
			} else {
				paths = append(paths, n.path)
			}
		}
		slices.Sort(paths)
		var err error
		granted, err = e.vault.Capabilities(ctx, e.config.Vault.Namespace, slices.Compact(paths))
		if err == nil && len(own) > 0 {
			var more map[string][]string
			more, err = e.vault.Capabilities(ctx, e.config.Vault.Credential.Namespace, own)
			for path, capabilities := range more {
				granted[path] = capabilities
			}
		}
		if err != nil {
			return warn("Let its policy update sys/capabilities-self: default does.", "what it may do is not known: %s", reason(err))
		}
		return ok("Vault says what it may do")
	}, "token")
	unknown := skip("what it may do is not known")
	for _, n := range e.needs() {
		e.check(ctx, "policy-needs", n.path, func(context.Context) outcome {
			if granted == nil {
				return unknown
			}
			if slices.Contains(granted[n.path], n.capability) || slices.Contains(granted[n.path], "root") {
				return ok("it may %s", n.capability)
			}
			return n.lacking
		}, "policy")
	}
	e.check(ctx, "policy-excess", "", func(context.Context) outcome {
		if granted == nil {
			return unknown
		}
		return e.tooMuch(granted)
	}, "policy")
}

func (e *examination) tooMuch(granted map[string][]string) outcome {
	var found []string
	for _, path := range e.excess() {
		var more []string
		for _, capability := range granted[path] {
			// Only encrypt is to be updated.
			if !harmless(capability) || capability != "deny" && !e.usual(path, capability) {
				more = append(more, capability)
			}
		}
		if len(more) > 0 {
			found = append(found, fmt.Sprintf("%s on %s", strings.Join(more, " and "), path))
		}
	}
	if len(found) > 0 {
		return warn("Give it the policy that trousseauctl policy prints, and no other that reaches these paths.", "it may do more than trousseau needs: %s", strings.Join(found, "; "))
	}
	return ok("nothing more that would do harm")
}

// usual reports whether trousseau's own policy grants this.
func (e *examination) usual(path, capability string) bool {
	v := e.config.Vault
	for _, key := range v.KeyNames {
		if path == v.TransitPath+"/keys/"+key && capability == "read" || path == v.TransitPath+"/encrypt/"+key && capability == "update" {
			return true
		}
	}
	return false
}

// giveBack ends the life of a token that was made for this examination. The time
// of that may be over, and the token is to go nevertheless.
func (e *examination) giveBack() {
	if e.vault == nil || !e.vault.Minted() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), step)
	defer cancel()
	e.vault.Revoke(ctx)
}

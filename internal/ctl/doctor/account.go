// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultview"
	"github.com/trousseau-io/trousseau/internal/fault"
)

// account logs in, and checks the token: its lifetime and what it may do.
func (e *examination) account(ctx context.Context) {
	c := e.config.Vault.Credential
	e.check(ctx, "login", "", func(ctx context.Context) outcome {
		switch c.Method {
		case config.TokenGiven:
			return ok("not needed: the token is given")
		case config.Proxied:
			return ok("not needed: the proxy at the address adds its token")
		}
		if _, err := e.vault.Login(ctx); err != nil {
			return fail("Check the role and its bindings, and that the "+credentialName(c.Method)+" is still valid.", "%v", err)
		}
		return ok("by auth/%s/login", c.Path)
	}, "vault")

	var t *vaultview.Token // nil if it may not look itself up
	e.check(ctx, "token", "", func(ctx context.Context) (o outcome) {
		t, o = e.token(ctx)
		return o
	}, "login")
	lookedUp := func(judge func() outcome) func(context.Context) outcome {
		return func(context.Context) outcome {
			if t == nil {
				return skip("the token may not look itself up")
			}
			return judge()
		}
	}
	e.check(ctx, "token-life", "", lookedUp(func() outcome { return life(t, e.vault.Mints(), c.Method) }), "token")
	e.check(ctx, "token-policies", "", lookedUp(func() outcome {
		if slices.Contains(t.Policies, "root") {
			return warn("Issue a token that has only the policy that trousseauctl policy prints.", "it is a root token, which may do everything")
		}
		return ok("%s", strings.Join(slices.Compact(slices.Sorted(slices.Values(append(t.Policies, t.IdentityPolicies...)))), ", "))
	}), "token")
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

// token looks the token up. The daemon works with a token that may not look itself
// up, so then nil is returned, and the other checks go on.
func (e *examination) token(ctx context.Context) (*vaultview.Token, outcome) {
	t, err := e.vault.TokenDetails(ctx)
	switch denied := fault.ClassOf(err) == fault.Denied; {
	case denied && (e.vault.Mints() || e.vault.TokenAccepted(ctx)):
		return nil, warn(`Let its policy read auth/token/lookup-self; the policy "default" does.`, "Vault accepts it, but it may not look itself up: its lifetime and policies are unknown")
	case denied:
		return nil, fail("Issue a new token. If this one is still valid, give it the policy that trousseauctl policy prints.", "Vault denies it every call: it is expired or revoked, or has no policy for trousseau")
	case err != nil:
		return nil, fail("Check the namespace, and read Vault's log.", "%v", err)
	case t.Uses > 0:
		return nil, fail("Issue a token without num_uses: each call of trousseau and of doctor uses one up.", "it is valid for %s more, then never again", text.Count(t.Uses, "call"))
	}
	return &t, ok("a %s token", t.Type)
}

// life judges who renews or replaces a token before it expires.
func life(t *vaultview.Token, minted bool, method config.Method) outcome {
	left := text.Span(t.TTL.Duration())
	switch {
	case t.Expires == nil:
		return ok("it never expires")
	case method == config.Proxied:
		return ok("%s left; the proxy renews it", left)
	case minted:
		return ok("a login grants %s; trousseau logs in again", left)
	case !t.Renewable:
		return warn("Issue one that is renewable and has a period: vault token create -orphan -period=…; or make sure that a new one is written in time.", "it expires in %s and cannot be renewed", left)
	case t.MaxTTL > 0:
		return warn("Make sure that a new one is written in time, or issue one without explicit_max_ttl.", "%s left; trousseau renews it, up to its maximum of %s in all", left, text.Span(t.MaxTTL.Duration()))
	case t.Period == 0:
		return warn("Issue one with a period, or make sure that a new one is written in time.", "%s left; trousseau renews it, up to Vault's maximum TTL: it has no period", left)
	}
	return ok("%s left; trousseau renews it", left)
}

// need is a capability that the daemon needs on a path.
type need struct {
	path, capability string
	own              bool // in the token's namespace, not the transit engine's
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
			all = append(all, need{path: path, capability: "update", lacking: fail(line(path, "update"), "update is not allowed: no new seed can be encrypted")})
		}
		path := v.TransitPath + "/decrypt/" + key
		all = append(all, need{path: path, capability: "update", lacking: fail(line(path, "update"), "update is not allowed: seeds encrypted by this key cannot be decrypted")})
		if path := v.TransitPath + "/keys/" + key; i == 0 {
			all = append(all, need{path: path, capability: "read", lacking: warn(line(path, "read"), "read is not allowed: a deleted and recreated key cannot be distinguished from its predecessor")})
		}
	}
	if v.Credential.Method == config.TokenGiven {
		const path = "auth/token/renew-self"
		all = append(all, need{path: path, capability: "update", own: true, lacking: warn(line(path, "update"), "update is not allowed: trousseau cannot renew its token")})
	}
	return all
}

// excess lists the paths on which a capability that the daemon does not need would
// harm the key.
func (e *examination) excess() (paths []string) {
	v := e.config.Vault
	for _, key := range v.KeyNames {
		for _, what := range []string{"keys/%s", "keys/%s/config", "keys/%s/rotate", "keys/%s/trim", "export/encryption-key/%s", "backup/%s", "encrypt/%s"} {
			paths = append(paths, v.TransitPath+"/"+fmt.Sprintf(what, key))
		}
	}
	return append(paths, v.TransitPath+"/keys")
}

// harmless reports whether trousseau's own policy grants a capability somewhere, or
// whether it grants nothing.
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
			granted = nil
			return warn(`Let its policy update sys/capabilities-self; the policy "default" does.`, "the token's permissions are unknown: %v", err)
		}
		return ok("Vault reports the token's permissions")
	}, "token")
	unknown := skip("the token's permissions are unknown")
	for _, n := range e.needs() {
		e.check(ctx, "policy-needs", n.path, func(context.Context) outcome {
			if granted == nil {
				return unknown
			}
			if slices.Contains(granted[n.path], n.capability) || slices.Contains(granted[n.path], "root") {
				return ok("%s is allowed", n.capability)
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

// tooMuch judges the capabilities that were granted beyond what the daemon needs.
func (e *examination) tooMuch(granted map[string][]string) outcome {
	var found []string
	for _, path := range e.excess() {
		var more []string
		for _, capability := range granted[path] {
			if !harmless(capability) || capability != "deny" && !e.usual(path, capability) {
				more = append(more, capability)
			}
		}
		if len(more) > 0 {
			found = append(found, fmt.Sprintf("%s on %s", strings.Join(more, " and "), path))
		}
	}
	if len(found) > 0 {
		return warn("Give it only the policy that trousseauctl policy prints, and no other that matches these paths.", "it may do more than trousseau needs: %s", strings.Join(found, "; "))
	}
	return ok("nothing harmful beyond what trousseau needs")
}

// usual reports whether trousseau's own policy grants a capability on a path.
func (e *examination) usual(path, capability string) bool {
	v := e.config.Vault
	for _, key := range v.KeyNames {
		if path == v.TransitPath+"/keys/"+key && capability == "read" || path == v.TransitPath+"/encrypt/"+key && capability == "update" {
			return true
		}
	}
	return false
}

// close revokes a token that a login has issued, and closes the connections. It has
// a time of its own, because that of the checks may be up.
func (e *examination) close() {
	ctx, cancel := context.WithTimeout(context.Background(), step)
	defer cancel()
	for _, v := range e.views {
		_ = v.Revoke(ctx) // if it fails, the token expires
		v.Close()
	}
}

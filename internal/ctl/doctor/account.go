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

// account logs in, and checks the token: whether each address accepts it, its lifetime,
// and what it may do.
func (e *examination) account(ctx context.Context) {
	c := e.config.Vault.Credential
	e.check(ctx, "login", "", func(ctx context.Context) outcome {
		switch c.Method {
		case config.TokenGiven:
			return ok("not needed: the token is given")
		case config.Proxied:
			return ok("not needed: the proxy at the address adds its token")
		}
		return e.login(ctx)
	}, "vault")

	var t *vaultview.Token // nil if it may not look itself up
	for _, v := range e.views {
		address := v.Address()
		e.check(ctx, "token", address, func(ctx context.Context) outcome {
			found, o := e.token(ctx, v)
			if e.vault == nil && o.result != Fail {
				e.vault, t = v, found
			}
			return o
		}, ground("vault-health", address), "login", "uses")
	}
	e.anyOf("token", "token")
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
	e.check(ctx, "token-networks", "", lookedUp(func() outcome {
		if len(t.BoundCIDRs) > 0 {
			return warn("Check that every node that uses this configuration has an address in them.", "Vault accepts it only from %s", strings.Join(t.BoundCIDRs, ", "))
		}
		return ok("Vault accepts it from any network (no bound_cidrs)")
	}), "token")
	e.policy(ctx)
}

// unwrap is what to do with a response-wrapping token.
const unwrap = "Unwrap it (vault unwrap), and write what it holds. Its one use is not spent yet."

// login logs in at the first usable address that neither refuses nor fails.
func (e *examination) login(ctx context.Context) outcome {
	c := e.config.Vault.Credential
	var failed []string
	for _, v := range e.views {
		if !e.usable(v, "vault-health") {
			continue
		}
		if c.Method == config.AppRole {
			if wraps, _ := v.Wraps(ctx, c.SecretID); wraps {
				return fail(unwrap, "the secret ID is a response-wrapping token, not a secret ID")
			}
		}
		_, err := v.Login(ctx)
		if err == nil {
			return ok("by auth/%s/login at %s", c.Path, v.Address())
		}
		failed = append(failed, err.Error())
		if fault.ClassOf(err) == fault.Denied {
			break // Vault counts refused logins
		}
	}
	return fail("Check the role and its bindings, and that the "+credentialName(c.Method)+" is still valid.", "%s", strings.Join(failed, "; "))
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

// token looks the token up at an address. The daemon works with a token that may not
// look itself up, so then nil is returned, and the other checks go on.
func (e *examination) token(ctx context.Context, v *vaultview.View) (*vaultview.Token, outcome) {
	if c := e.config.Vault.Credential; c.Method == config.TokenGiven {
		switch wraps, err := v.Wraps(ctx, c.Token); {
		case err != nil:
			return nil, fail("Allow sys/wrapping/lookup in what is before Vault.", "not used, because it could be a response-wrapping token, which has one use: %v", err)
		case wraps:
			return nil, fail(unwrap, "it is a response-wrapping token, not a token for trousseau")
		}
	}
	t, err := v.TokenDetails(ctx)
	switch denied := fault.ClassOf(err) == fault.Denied; {
	case denied && (v.Mints() || v.TokenAccepted(ctx)):
		return nil, warn(`Let its policy read auth/token/lookup-self; the policy "default" does.`, "Vault accepts it, but it may not look itself up: its lifetime and policies are unknown")
	case denied:
		return nil, fail("Issue a new token. If this one is still valid, give it the policy that trousseauctl policy prints, and check that this host is in its bound_cidrs.", "Vault denies it every call: it is expired or revoked, is bound to other networks, or has no policy for trousseau")
	case err != nil:
		return nil, fail("Check the namespace, and read Vault's log.", "%v", err)
	case t.Uses > 0:
		e.cause["uses"] = ground("token", v.Address())
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

// harmless reports whether a capability on a path of excess is trousseau's own, or
// gives nothing away.
func (e *examination) harmless(path, capability string) bool {
	mount := e.config.Vault.TransitPath
	switch capability {
	case "deny":
		return true
	case "read":
		return !strings.HasPrefix(path, mount+"/export/") && !strings.HasPrefix(path, mount+"/backup/")
	case "update":
		return strings.HasPrefix(path, mount+"/encrypt/")
	}
	return false
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
			if !e.harmless(path, capability) {
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

// close revokes a token that a login has issued, and closes the connections. It has
// a time of its own, because that of the checks may be up.
func (e *examination) close() {
	ctx, cancel := context.WithTimeout(context.Background(), step)
	defer cancel()
	for _, v := range e.views {
		if e.usable(v, "vault-health") && v.Revoke(ctx) == nil { // otherwise the token expires
			break
		}
	}
	if e.views != nil {
		e.views[0].Close()
	}
}

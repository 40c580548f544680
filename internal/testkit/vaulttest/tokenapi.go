// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// authenticate finds the token of a request. The errors for a missing and an invalid token differ, as in Vault ≥
// 1.17.
func (st *store) authenticate(id string, now time.Time) (*token, *reply) {
	if id == "" {
		denied := refuse(http.StatusForbidden, "permission denied")
		return nil, &denied
	}
	t := st.tokens[id]
	if !st.alive(t, now) {
		denied := refuse(http.StatusForbidden, wrapped("permission denied", "invalid token"))
		return nil, &denied
	}
	return t, nil
}

// use counts down a token with limited uses. The returned function ends the request and revokes a token that is
// used up.
func (st *store) use(t *token) (done func()) {
	if t.uses == 0 {
		return func() {}
	}
	if t.uses--; t.uses > 0 {
		return func() {}
	}
	t.uses = -1
	return func() { st.revoke(t.id) }
}

func (st *store) renew(t *token, req *request) reply {
	increment := req.fields.duration("increment")
	terms, granted := *t, t.granted
	switch {
	case req.fields.mistake != "":
		return reply{}
	case t.kind == Batch:
		return refuse(http.StatusBadRequest, "batch tokens cannot be renewed")
	case t.uses < 0:
		// This request was the token's last use.
		return refuse(http.StatusBadRequest, "token not found")
	case t.namespace != req.namespace:
		return refuse(http.StatusInternalServerError, wrapped("cannot renew a token across namespaces"))
	case t.expires.IsZero():
		return refuse(http.StatusBadRequest, "invalid lease ID")
	case !t.renewable:
		return refuse(http.StatusBadRequest, "lease is not renewable")
	}
	if t.auth != "" {
		role, denied := st.auths[t.auth].renewalRole(t, req)
		if denied != nil {
			return *denied
		}
		// Limits come from the current role; the explicit maximum was fixed at login.
		terms.period, terms.maxTTL, granted = role.token.Period, role.token.MaxTTL, role.token.TTL
	}
	ttl, warnings, ok := terms.calculateTTL(req.now, increment, granted)
	if !ok {
		return refuse(http.StatusInternalServerError, wrapped("past the max TTL, cannot renew"))
	}
	t.granted, t.expires, t.renewed = ttl, req.now.Add(ttl), req.now
	return reply{auth: t.handOut(ttl), warnings: warnings, mount: "token"}
}

// handOut is the auth part of an answer that issues or renews a token.
func (t *token) handOut(ttl time.Duration) map[string]any {
	auth := map[string]any{
		"client_token":    t.id,
		"accessor":        t.accessor,
		"policies":        append([]string{}, t.policies...),
		"metadata":        t.metadata,
		"lease_duration":  seconds(ttl),
		"renewable":       t.renewable,
		"entity_id":       t.entity,
		"token_type":      t.kind,
		"orphan":          t.parent == "",
		"mfa_requirement": nil,
		"num_uses":        t.numUses,
	}
	if len(t.policies) > 0 {
		auth["token_policies"] = t.policies
	}
	return auth
}

func (st *store) revokeSelf(t *token) reply {
	if t.kind == Batch {
		return refuse(http.StatusBadRequest, "batch tokens cannot be revoked")
	}
	st.revoke(t.id)
	return reply{}
}

func (st *store) revokeAccessor(req *request) reply {
	accessor := req.fields.text("accessor")
	if accessor == "" {
		return refuse(http.StatusBadRequest, wrapped("missing accessor"))
	}
	id := st.byAccessor(accessor)
	if id == "" {
		return reply{warnings: []string{"No token found with this accessor"}, mount: "token"}
	}
	st.revoke(id)
	return reply{}
}

// createToken is auth/token/create and auth/token/create-orphan. Only root tokens have sudo.
func (st *store) createToken(req *request, parent *token) reply {
	f, root := req.fields, slices.Contains(parent.policies, "root")
	o := TokenOptions{
		NoDefaultPolicy: f.flag("no_default_policy", false),
		TTL:             f.lifetime("ttl"),
		Period:          f.lifetime("period"),
		ExplicitMaxTTL:  f.lifetime("explicit_max_ttl"),
		NotRenewable:    !f.flag("renewable", true),
		NumUses:         f.number("num_uses"),
		Orphan:          f.flag("no_parent", false) || strings.HasSuffix(req.path, "create-orphan"),
		Type:            f.text("type"),
		Namespace:       req.namespace,
	}
	if _, alone := f.values["policies"].(string); alone {
		o.Policies = []string{f.text("policies")}
	} else {
		o.Policies = f.list("policies")
	}
	if len(o.Policies) == 0 {
		o.Policies = slices.Clone(parent.policies)
	}
	switch {
	case f.mistake != "":
		return reply{}
	case parent.kind == Batch:
		return refuse(http.StatusBadRequest, "batch tokens cannot create more tokens")
	case parent.uses != 0:
		return refuse(http.StatusBadRequest, "restricted use token cannot generate child tokens")
	case o.Type != "" && o.Type != Service && o.Type != Batch:
		return refuse(http.StatusBadRequest, "invalid 'token_type' value")
	case o.NumUses < 0:
		return refuse(http.StatusBadRequest, "number of uses cannot be negative")
	case !root && f.flag("no_parent", false):
		return refuse(http.StatusBadRequest, "root or sudo privileges required to create orphan token")
	case !root && o.Period > 0:
		return refuse(http.StatusBadRequest, "root or sudo privileges required to create periodic token")
	case !root && slices.ContainsFunc(o.Policies, func(p string) bool { return !slices.Contains(parent.policies, p) }):
		return refuse(http.StatusBadRequest, "child policies must be subset of parent")
	}
	parentID := parent.id
	if o.Orphan {
		parentID = ""
	}
	t, warnings := st.newToken(o, parentID)
	for _, name := range t.policies {
		if _, known := st.policies[name]; !known && name != "root" {
			warnings = append(warnings, fmt.Sprintf("Policy %q does not exist", name))
		}
	}
	t.path = req.path
	if name := f.text("display_name"); name != "" {
		t.displayName = "token-" + name
	}
	return reply{auth: t.handOut(t.ttl), warnings: warnings, mount: "token"}
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// lookupToken is auth/token/lookup. Without a token in the body it looks up the request's token.
func (st *store) lookupToken(req *request, t *token) reply {
	if id := req.fields.text("token"); id != "" {
		t = st.tokens[id]
		if kind, rest, dot := strings.Cut(id, "."); dot && t == nil && (strings.Contains(rest, ".") || !slices.Contains([]string{"hvs", "hvb", "s", "b"}, kind)) {
			// Behind the last dot is the id of a namespace (SplitIDFromString in vault/helper/namespace).
			return refuse(http.StatusInternalServerError, wrapped("no namespace"))
		}
	}
	if !st.alive(t, req.now) {
		return refuse(http.StatusForbidden, "bad token")
	}
	return t.lookup(req.now)
}

// wrappingLookup is sys/wrapping/lookup, which needs no token and does not use up the one in the body.
func (st *store) wrappingLookup(req *request) reply {
	t := st.tokens[req.fields.text("token")]
	if !st.alive(t, req.now) || !slices.Equal(t.policies, []string{WrappingPolicy}) {
		return refuse(http.StatusBadRequest, "wrapping token is not valid or does not exist")
	}
	return reply{data: map[string]any{"creation_path": t.path, "creation_time": t.created, "creation_ttl": seconds(t.ttl)}}
}

// lookupAccessor is auth/token/lookup-accessor. It returns everything but the token.
func (st *store) lookupAccessor(req *request) reply {
	accessor := req.fields.text("accessor")
	if accessor == "" {
		return refuse(http.StatusBadRequest, wrapped("missing accessor"))
	}
	t := st.tokens[st.byAccessor(accessor)]
	if !st.alive(t, req.now) {
		return refuse(http.StatusBadRequest, wrapped("invalid accessor"))
	}
	answer := t.lookup(req.now)
	answer.data["id"] = ""
	return answer
}

func (t *token) lookup(now time.Time) reply {
	data := map[string]any{
		"id":               t.id,
		"accessor":         t.accessor,
		"policies":         t.policies,
		"path":             t.path,
		"meta":             t.metadata,
		"display_name":     t.displayName,
		"num_uses":         t.uses,
		"orphan":           t.parent == "",
		"creation_time":    t.created.Unix(),
		"creation_ttl":     seconds(t.ttl),
		"expire_time":      nil,
		"ttl":              0,
		"explicit_max_ttl": seconds(t.explicitMaxTTL),
		"entity_id":        t.entity,
		"type":             t.kind,
	}
	if t.period > 0 {
		data["period"] = seconds(t.period)
	}
	if t.namespace != "" {
		data["namespace_path"] = t.namespace + "/"
	}
	if !t.renewed.IsZero() {
		data["last_renewal_time"] = t.renewed.Unix()
		data["last_renewal"] = t.renewed
	}
	if !t.expires.IsZero() {
		data["expire_time"] = t.expires
		data["ttl"] = seconds(t.expires.Sub(now.Round(time.Second)))
		data["issue_time"] = t.created
		data["renewable"] = t.renewable
	}
	return reply{data: data, mount: "token"}
}

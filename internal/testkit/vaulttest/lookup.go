// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"net/http"
	"time"
)

// lookupToken is auth/token/lookup. Without a token it is that of the request.
func (st *store) lookupToken(req *request, t *token) reply {
	if id := req.fields.text("token"); id != "" {
		t = st.tokens[id]
	}
	if !st.alive(t, req.now) {
		return refuse(http.StatusForbidden, "bad token")
	}
	return t.lookup(req.now)
}

// lookupAccessor is auth/token/lookup-accessor: all but the token itself.
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

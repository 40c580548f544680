// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"fmt"
	"net/http"
	"time"
)

// request is a request as the core of Vault sees it.
type request struct {
	route
	token  string
	fields *fields
	lag    int // how many rotations this node has not heard of
	now    time.Time
}

// serve answers a request that has reached an unsealed Vault: token first, then policy, then the engine.
func (st *store) serve(req *request) reply {
	st.mu.Lock()
	defer st.mu.Unlock()
	req.now = st.now()
	t, denied := st.login(req.token, req.now)
	if denied != nil {
		return *denied
	}
	defer st.use(t)()
	if !within(t.namespace, req.namespace) {
		return refuse(http.StatusForbidden, "permission denied")
	}
	if !st.allows(t, req.full(), st.capability(req)) {
		return refuse(http.StatusForbidden, wrapped("permission denied"))
	}
	answer := st.dispatch(req, t)
	// A handler that has met a mistake in the body answers anything: the mistake takes precedence.
	if req.fields.mistake != "" {
		return refuse(http.StatusBadRequest, req.fields.mistake)
	}
	return answer
}

func (st *store) dispatch(req *request, t *token) reply {
	m := st.mounts[req.mount]
	switch req.op {
	case OpLookupSelf:
		return t.lookup(req.now)
	case OpRenewSelf:
		return t.renew(req)
	case OpRevokeSelf:
		return st.revokeSelf(t)
	case OpRevokeAccessor:
		return st.revokeAccessor(req)
	case OpCreateToken:
		return st.createToken(req, t)
	case OpCapabilities:
		return st.capabilitiesSelf(req, t)
	case OpKVRead, OpKVWrite:
		return m.kv(req)
	}
	if m == nil {
		return refuse(http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", req.full()))
	}
	switch req.op {
	case OpEncrypt:
		return m.encrypt(req, &st.secrets)
	case OpDecrypt:
		return m.decrypt(req, &st.secrets)
	case OpReadKey:
		return m.readKey(req)
	case OpCreateKey:
		return m.createKey(req)
	case OpRotateKey:
		return m.rotateKey(req)
	case OpConfigKey:
		return m.configKey(req)
	case OpDeleteKey:
		return m.deleteKey(req)
	}
	if req.name != "" {
		return refuse(http.StatusMethodNotAllowed, wrapped("unsupported operation"))
	}
	return refuse(http.StatusNotFound, wrapped("unsupported path"))
}

// capability is what a policy must grant for this request. Writing to something that is not there is creating it,
// on the paths where Vault checks for existence.
func (st *store) capability(req *request) string {
	m := st.mounts[req.mount]
	switch {
	case req.op == OpEncrypt && m != nil && m.keys[req.name] == nil,
		req.op == OpKVWrite && len(m.values[req.name]) == 0:
		return "create"
	case req.method == http.MethodGet || req.method == http.MethodHead:
		return "read"
	case req.method == http.MethodDelete:
		return "delete"
	case req.method == "LIST":
		return "list"
	default:
		return "update"
	}
}

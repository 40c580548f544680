// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"time"
)

// request is a request as the core of Vault sees it.
type request struct {
	route
	token  string
	peer   *tls.ConnectionState // nil without TLS
	fields *fields
	lag    int // how many rotations this node has not heard of
	now    time.Time
}

// serve answers a request that has reached an unsealed Vault.
func (st *store) serve(req *request) reply {
	st.mu.Lock()
	defer st.mu.Unlock()
	req.now = st.now()
	answer := st.handle(req)
	// A handler that has met a mistake in the body answers anything: the mistake takes precedence.
	if req.fields.mistake != "" {
		return refuse(http.StatusBadRequest, req.fields.mistake)
	}
	return answer
}

// handle is a login, or else: token first, then policy, then the engine.
func (st *store) handle(req *request) reply {
	if m := st.auths[req.auth]; m != nil && req.op == OpLogin {
		return st.login(m, req)
	}
	t, denied := st.authenticate(req.token, req.now)
	if denied != nil {
		return *denied
	}
	defer st.use(t)()
	if !within(t.namespace, req.namespace) {
		return refuse(http.StatusForbidden, "permission denied")
	}
	if !st.allows(t, req.full(), st.capability(req)) || req.op == OpEnableAuth && !st.allows(t, req.full(), "sudo") {
		return refuse(http.StatusForbidden, wrapped("permission denied"))
	}
	return st.dispatch(req, t)
}

func (st *store) dispatch(req *request, t *token) reply {
	m := st.mounts[req.mount]
	switch req.op {
	case OpLookupSelf:
		return t.lookup(req.now)
	case OpLookup:
		return st.lookupToken(req, t)
	case OpLookupAccessor:
		return st.lookupAccessor(req)
	case OpRenewSelf:
		return st.renew(t, req)
	case OpRevokeSelf:
		return st.revokeSelf(t)
	case OpRevokeAccessor:
		return st.revokeAccessor(req)
	case OpCreateToken:
		return st.createToken(req, t)
	case OpCapabilities:
		return st.capabilitiesSelf(req, t)
	case OpListMounts:
		return st.listMounts(req)
	case OpMount:
		return st.mountEngine(req)
	case OpListAuth:
		return st.listAuth(req)
	case OpEnableAuth:
		return st.enableAuth(req)
	case OpReadPolicy:
		return st.readPolicy(req)
	case OpWritePolicy:
		return st.writePolicy(req)
	case OpReadAuthConfig, OpWriteAuthConfig, OpReadRole, OpWriteRole:
		return st.auths[req.auth].kubernetes(req)
	case OpKVRead, OpKVWrite:
		return m.kv(req)
	}
	if m == nil && st.auths[req.auth] == nil {
		return refuse(http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", req.full()))
	}
	switch req.op {
	case OpEncrypt:
		return m.encrypt(req)
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
		req.op == OpWriteRole && st.auths[req.auth].roles[req.name] == nil,
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

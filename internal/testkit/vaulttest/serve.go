// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// request is a request after routing and parsing.
type request struct {
	route
	token  string
	peer   *tls.ConnectionState // nil without TLS
	fields *fields
	lag    int // rotations that have not reached this node
	now    time.Time
}

// serve answers a request to an unsealed Vault.
func (st *store) serve(req *request) reply {
	st.mu.Lock()
	defer st.mu.Unlock()
	req.now = st.now()
	answer := st.handle(req)
	// A mistake in the body takes precedence over the handler's answer.
	if mistake := req.fields.mistake; mistake != "" {
		if slices.Contains([]string{OpEncrypt, OpKVWrite, OpWriteRole}, req.op) {
			mistake = strings.TrimPrefix(mistake, validation)
		}
		return refuse(http.StatusBadRequest, mistake)
	}
	return answer
}

// handle handles a login, or checks the token, then the policy, then calls the engine.
func (st *store) handle(req *request) reply {
	if m := st.auths[req.auth]; m != nil && req.op == OpLogin {
		return st.login(m, req)
	}
	if req.op == OpWrappingLookup {
		return st.wrappingLookup(req)
	}
	t, denied := st.authenticate(req.token, req.now)
	if denied != nil {
		return *denied
	}
	defer st.use(t)()
	if !within(t.namespace, req.namespace) {
		return refuse(http.StatusForbidden, "permission denied")
	}
	// This path is open to every token, and checks the mount itself.
	if req.op != OpShowMount && !st.allows(t, req.full(), st.capability(req)) || req.op == OpEnableAuth && !st.allows(t, req.full(), "sudo") {
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
	case OpShowMount:
		return st.showMount(req, t)
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
	if m == nil && st.auths[req.auth] == nil && !strings.HasPrefix(req.path, "sys/") && !strings.HasPrefix(req.path, "auth/token/") {
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
	case OpTrimKey:
		return m.trimKey(req)
	case OpDeleteKey:
		return m.deleteKey(req)
	}
	if m != nil && m.kind == kindKV && m.version == "2" && req.name == "" {
		verb := map[string]string{http.MethodGet: "get", http.MethodPost: "put", http.MethodDelete: "delete", "LIST": "list"}[req.method]
		return reply{status: http.StatusNotFound, warnings: []string{"Invalid path for a versioned K/V secrets engine. See the API docs for" +
			" the appropriate API endpoints to use. If using the Vault CLI, use 'vault kv " + verb + "' for this operation."}}
	}
	if m != nil && m.kind == kindKV && req.method == http.MethodGet {
		return refuse(http.StatusNotFound) // this fake keeps nothing in version 1
	}
	if req.name != "" {
		return refuse(http.StatusMethodNotAllowed, wrapped("unsupported operation"))
	}
	return refuse(http.StatusNotFound, wrapped("unsupported path"))
}

// capability returns the capability that this request needs. Writing to a missing object needs "create", on the
// paths where Vault checks for existence.
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

// systemOp determines the operation and target of a request below sys/ or auth/.
func systemOp(method, path string) (op, name string) {
	switch method + " " + path {
	case "GET auth/token/lookup-self":
		return OpLookupSelf, ""
	case "GET auth/token/lookup", "POST auth/token/lookup":
		return OpLookup, ""
	case "POST auth/token/lookup-accessor":
		return OpLookupAccessor, ""
	case "POST auth/token/renew-self":
		return OpRenewSelf, ""
	case "POST auth/token/revoke-self":
		return OpRevokeSelf, ""
	case "POST auth/token/revoke-accessor":
		return OpRevokeAccessor, ""
	case "POST auth/token/create", "POST auth/token/create-orphan":
		return OpCreateToken, ""
	case "POST sys/capabilities-self":
		return OpCapabilities, ""
	case "POST sys/wrapping/lookup":
		return OpWrappingLookup, ""
	case "GET sys/health", "HEAD sys/health":
		return OpHealth, ""
	case "GET sys/seal-status":
		return OpSealStatus, ""
	case "GET sys/mounts":
		return OpListMounts, ""
	case "GET sys/auth":
		return OpListAuth, ""
	}
	for _, below := range []struct{ prefix, op string }{
		{"GET sys/internal/ui/mounts/", OpShowMount},
		{"POST sys/mounts/", OpMount},
		{"POST sys/auth/", OpEnableAuth},
		{"GET sys/policies/acl/", OpReadPolicy},
		{"POST sys/policies/acl/", OpWritePolicy},
	} {
		if name, ok := strings.CutPrefix(method+" "+path, below.prefix); ok && name != "" {
			return below.op, name
		}
	}
	if name, ok := strings.CutPrefix(path, "auth/token/"); ok && slices.Contains(tokenPaths, name) {
		return OpOther, name
	}
	return OpOther, ""
}

// tokenPaths are the existing paths below auth/token, for any method.
var tokenPaths = []string{
	"create", "create-orphan", "lookup", "lookup-accessor", "lookup-self", "renew-self", "revoke-accessor", "revoke-self",
}

// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// authMount is an auth method enabled at a path.
type authMount struct {
	mounted
	roles       map[string]*role
	defaultRole string              // jwt
	bearers     map[string][]string // jwt, kubernetes: JWT → allowed roles
	entities    map[string]string   // login name in this method → entity ID
	cluster     *cluster            // kubernetes; nil before its config is written
	logins      int
}

// role maps a credential to a token.
type role struct {
	name    string
	token   TokenOptions // Rules are stored as a policy
	appRole appRole
	trusted *x509.Certificate // cert
	bound   bound             // kubernetes
}

// identity is an authenticated caller.
type identity struct {
	role     *role
	alias    string // caller's name in this method
	display  string // appended to the mount path in the token's display_name
	metadata map[string]string
}

func newAuthMount(kind, namespace, path string) *authMount {
	m := &authMount{
		mounted: newMounted(kind, namespace, path),
		roles:   map[string]*role{}, bearers: map[string][]string{}, entities: map[string]string{},
	}
	m.accessor = "auth_" + m.accessor
	return m
}

// AuthMethod holds the functions common to all auth methods.
type AuthMethod struct {
	store *store
	at    string
}

// enable returns a method of this kind in a namespace ("" is the root) and creates the namespace if it is missing.
// If the method already exists, it is returned unchanged.
func (s *Server) enable(kind, namespace, path string) AuthMethod {
	st := s.store
	st.mu.Lock()
	defer st.mu.Unlock()
	namespace, path = st.namespace(namespace), strings.Trim(path, "/")
	at := join(namespace, "auth/"+path)
	switch m := st.auths[at]; {
	case m == nil:
		st.auths[at] = newAuthMount(kind, namespace, path)
	case m.kind != kind:
		panic(fmt.Sprintf("vaulttest: %s is a mount of %s", at, m.kind))
	}
	return AuthMethod{store: st, at: at}
}

// Disable removes the method and its roles, and revokes the tokens that it issued.
func (a *AuthMethod) Disable() {
	a.with(func(*authMount) {
		delete(a.store.auths, a.at)
		for id, t := range a.store.tokens {
			if t.auth == a.at {
				a.store.revoke(id)
			}
		}
	})
}

// Logins returns the number of successful logins. All login requests are counted under OpLogin.
func (a *AuthMethod) Logins() int {
	var n int
	a.with(func(m *authMount) { n = m.logins })
	return n
}

// Tokens returns the live tokens issued by logins, oldest first, without batch tokens.
func (a *AuthMethod) Tokens() []Token {
	return a.store.liveTokens(func(t *token) bool { return t.auth == a.at })
}

// setRole writes a role. Change sets the fields specific to the method.
func (a *AuthMethod) setRole(name string, o TokenOptions, change func(*role)) {
	switch {
	case o.Namespace != "" || o.NotRenewable:
		panic("vaulttest: writing role " + name + ": Vault decides on namespace and renewability of what a login yields")
	case o.Type == Batch && (o.NumUses != 0 || o.Period != 0):
		panic("vaulttest: writing role " + name + ": Vault refuses batch tokens with uses or a period")
	}
	o.Policies, o.Orphan = slices.Clone(o.Policies), true
	a.with(func(m *authMount) {
		if o.Rules != nil {
			o.Policies = append(o.Policies, a.store.ownPolicy(a.at+"/"+name, o.Rules))
			o.Rules = nil
		}
		o.Namespace = m.namespace
		r := m.roles[name]
		if r == nil {
			r = &role{name: name}
			m.roles[name] = r
		}
		r.token = o
		change(r)
	})
}

// with calls f with the method, holding the lock.
func (a *AuthMethod) with(f func(*authMount)) {
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	m := a.store.auths[a.at]
	if m == nil {
		panic(fmt.Sprintf("vaulttest: no auth method at %s", a.at))
	}
	f(m)
}

// role returns a role, which must exist.
func (m *authMount) role(name string) *role {
	r := m.roles[name]
	if r == nil {
		panic(fmt.Sprintf("vaulttest: no role %s in auth/%s", name, m.path))
	}
	return r
}

// login is auth/<path>/login. It neither needs nor checks a token.
func (st *store) login(m *authMount, req *request) reply {
	who, denied := m.identify(req)
	switch {
	case req.fields.mistake != "":
		return reply{}
	case denied != nil:
		return *denied
	case slices.Contains(who.role.token.Policies, "root"):
		return refuse(http.StatusBadRequest, "auth methods cannot create root tokens")
	}
	entity := m.entities[who.alias]
	if entity == "" {
		entity = newUUID()
		m.entities[who.alias] = entity
	}
	t, warnings := st.newToken(who.role.token, "")
	t.auth, t.role = req.auth, who.role.name
	t.path, t.metadata, t.entity = "auth/"+m.path+"/login", who.metadata, entity
	t.displayName = strings.TrimSuffix(strings.ReplaceAll(m.path, "/", "-")+"-"+who.display, "-")
	m.logins++
	return reply{auth: t.handOut(t.ttl), warnings: warnings}
}

// identify checks the credential in a login request and returns the caller.
func (m *authMount) identify(req *request) (identity, *reply) {
	switch {
	case m.kind == kindAppRole:
		return m.identifyAppRole(req)
	case req.method != http.MethodPost:
		return identity{}, refused(http.StatusMethodNotAllowed, "unsupported operation")
	case m.kind == kindKubernetes:
		return m.identifyKubernetes(req.fields)
	case m.kind == kindJWT:
		return m.identifyJWT(req.fields)
	default:
		return m.identifyCert(req.peer, req.fields.text("name"))
	}
}

// renewalRole returns the current role of a token issued by a login, for its renewal.
func (m *authMount) renewalRole(t *token, req *request) (*role, *reply) {
	if m.kind == kindCert {
		return m.renewCert(t, req.peer)
	}
	return m.roles[t.role], nil
}

// notRenewed is Vault's answer when the auth method refuses to renew a token.
func notRenewed(why string) *reply {
	return refused(http.StatusInternalServerError, wrapped("failed to renew entry: "+why))
}

// refused is refuse as a pointer, for functions that return nil on success.
func refused(status int, errors ...string) *reply {
	r := refuse(status, errors...)
	return &r
}

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
	bearers     map[string][]string // jwt, kubernetes: JWT → the roles that it may log in to
	entities    map[string]string   // who logs in, in the words of the method → entity id
	cluster     *cluster            // kubernetes; nil before its config is written
	logins      int
}

// role is what a credential is exchanged by, and for.
type role struct {
	name    string
	token   TokenOptions // Rules have become a policy
	appRole appRole
	trusted *x509.Certificate // cert
	bound   bound             // kubernetes
}

// identity is who has proven to be allowed in.
type identity struct {
	role     *role
	alias    string // what the method knows the caller by
	display  string // what the method adds to the mount path in the token's display_name
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

// AuthMethod is what the auth methods have in common.
type AuthMethod struct {
	store *store
	at    string
}

// enable returns a method of this kind in a namespace ("" is the root), which it creates if need be. One that is already
// there is returned as it is.
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

// Disable removes the method with its roles, and revokes the tokens that came from it.
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

// Logins is how many logins have been granted. Requests to log in, granted or not, are counted under OpLogin.
func (a *AuthMethod) Logins() int {
	var n int
	a.with(func(m *authMount) { n = m.logins })
	return n
}

// Tokens are the live tokens that have come from logins, oldest first, without the batch tokens.
func (a *AuthMethod) Tokens() []Token {
	return a.store.liveTokens(func(t *token) bool { return t.auth == a.at })
}

// setRole writes a role. Change makes it what its method needs.
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

// with runs f on the method under the lock.
func (a *AuthMethod) with(f func(*authMount)) {
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	m := a.store.auths[a.at]
	if m == nil {
		panic(fmt.Sprintf("vaulttest: no auth method at %s", a.at))
	}
	f(m)
}

// role is a role that must exist.
func (m *authMount) role(name string) *role {
	r := m.roles[name]
	if r == nil {
		panic(fmt.Sprintf("vaulttest: no role %s in auth/%s", name, m.path))
	}
	return r
}

// login is auth/<path>/login. It needs no token and does not look at one.
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

// identify exchanges the credential in a login for whom it proves.
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

// renewalRole is the role by which a token from a login is renewed, as it is now.
func (m *authMount) renewalRole(t *token, req *request) (*role, *reply) {
	if m.kind == kindCert {
		return m.renewCert(t, req.peer)
	}
	return m.roles[t.role], nil
}

// notRenewed is how Vault answers when the method of a token does not want to renew it.
func notRenewed(why string) *reply {
	return refused(http.StatusInternalServerError, wrapped("failed to renew entry: "+why))
}

// refused is refuse for a function that returns nil if it does not refuse.
func refused(status int, errors ...string) *reply {
	r := refuse(status, errors...)
	return &r
}

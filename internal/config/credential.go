// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"slices"
)

// Credential is what Vault lets us in for. Method says which of the fields below Namespace are set; the others are
// empty.
type Credential struct {
	// Method is the kind of credential.
	Method Method
	// Path is the mount of the auth method to log in at, without "auth/" and without leading or trailing slash; empty
	// for TokenGiven and Proxied, which log in nowhere.
	Path string
	// Namespace is the one to log in at and in which the token lives: authNamespace, or that of the transit engine when
	// the file does not say. Its form is that of Vault.Namespace.
	Namespace string
	// Token is the token of TokenGiven: the field token, or the one line in the file that tokenFile names.
	Token Secret
	// RoleID and SecretID are those of AppRole; SecretID may come from a file, as the token may.
	RoleID   string
	SecretID Secret
	// Role is the role to log in for with Kubernetes, and with JWT, where empty means the mount's default role.
	Role string
	// JWT is the content of the file that tokenFile names below kubernetes or jwt.
	JWT Secret
}

// Method is a kind of credential.
type Method string

// The methods. All but TokenGiven and Proxied have to be exchanged for a token first, at the auth method of Vault that
// has this name and, unless the file says otherwise, is mounted under it.
const (
	TokenGiven  Method = "token"      // a token, as it is
	AppRole     Method = "approle"    // a role ID and a secret ID
	Kubernetes  Method = "kubernetes" // the token of a Kubernetes ServiceAccount
	JWT         Method = "jwt"        // a JWT that somebody else issued
	Certificate Method = "cert"       // the client certificate of the TLS connection: Vault.ClientCert
	Proxied     Method = "proxy"      // none: at the address is an API proxy of Vault Agent, which adds its own token
)

// mount returns where the auth method is mounted by default; "" for a method that does not log in.
func (m Method) mount() string {
	if m == TokenGiven || m == Proxied {
		return ""
	}
	return string(m)
}

// way is one way to write a credential.
type way struct {
	method Method
	fields []string // any one of them chooses it
	read   func(*parser, section, *Credential)
	first  string // the one of fields that stands first in the file
}

var ways = []way{
	{method: TokenGiven, fields: []string{"token"}, read: (*parser).token},
	{method: TokenGiven, fields: []string{"tokenFile"}, read: (*parser).tokenFile},
	{method: AppRole, fields: []string{"roleID", "secretID", "secretIDFile"}, read: (*parser).appRole},
	{method: Kubernetes, fields: []string{"kubernetes"}, read: (*parser).kubernetes},
	{method: JWT, fields: []string{"jwt"}, read: (*parser).jwt},
	{method: Proxied, fields: []string{"apiProxy"}, read: func(*parser, section, *Credential) {}},
}

// certificate is the way to log in when there is no other: beside one, the same fields are for the connection only.
var certificate = way{
	method: Certificate, fields: []string{"clientCert", "clientKey"}, read: func(*parser, section, *Credential) {},
}

// credential reads the one credential, and where it is to be used; namespace is that of the transit engine.
func (p *parser) credential(s section, namespace string) (c Credential) {
	given := p.given(s)
	for i, w := range given {
		if i > 0 {
			p.second(s, "credential", given[0].first, w.first)
		}
		read := Credential{Method: w.method}
		w.read(p, s, &read) // for its mistakes, if it is not the one
		if i == 0 {
			c = read
		}
	}
	c.Path = p.authPath(s, c.Method)
	c.Namespace = p.path(s, "authNamespace", namespace)
	if len(given) == 1 { // of two, who knows which one the line is for
		p.meaningless(s, given[0])
	}
	return c
}

// given returns the ways whose fields are there, in the order of the file.
func (p *parser) given(s section) (found []way) {
	proxied, ok := p.boolean(s, "apiProxy")
	for _, w := range ways {
		w.first = s.first(w.fields...)
		if w.first != "" && (w.method != Proxied || proxied) {
			found = append(found, w)
		}
	}
	switch {
	case len(found) > 0:
		slices.SortStableFunc(found, func(a, b way) int { return cmp.Compare(s.lineOf(a.first), s.lineOf(b.first)) })
	case s.first(certificate.fields...) != "":
		found = []way{certificate}
	case s.has("apiProxy") && !ok:
		// Refused already; what it should be, true or false, decides whether a credential is missing.
	default:
		p.refuse(s.line, s.full("token"), "is missing, and so is any other credential; write one: token or tokenFile, "+
			"roleID with secretID or secretIDFile, kubernetes, jwt, clientCert with clientKey, or apiProxy: true")
	}
	return found
}

// meaningless refuses what says where to log in when the credential logs in nowhere.
func (p *parser) meaningless(s section, w way) {
	refuse := func(name string) {
		if s.has(name) {
			p.refuse(s.lineOf(name), s.full(name), "has no meaning with %s; remove this line", w.first)
		}
	}
	if w.method.mount() == "" {
		refuse("authPath")
	}
	if w.method == Proxied {
		refuse("authNamespace")
	}
}

// second refuses one of two fields of which there may be one: that which stands further down in the file.
func (p *parser) second(s section, what, first, second string) {
	if s.first(first, second) == second {
		first, second = second, first
	}
	p.refuse(s.lineOf(second), s.full(second), "is a second %s beside %s on line %d; keep one of the two",
		what, first, s.lineOf(first))
}

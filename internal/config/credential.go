// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"strings"
)

// Credential says how to authenticate to Vault. Method says which of the fields below Namespace are set; the others are
// empty.
type Credential struct {
	// Method is the kind of credential.
	Method Method
	// Path is the mount of the auth method to log in at, without "auth/" and without leading or trailing slash; empty
	// for TokenGiven and Proxied, which do not log in.
	Path string
	// Namespace is the one to log in at, and the token's own: authNamespace, by default that of the transit engine. Its
	// form is that of Vault.Namespace.
	Namespace string
	// Token is the token of TokenGiven: the field token, or the one line in the file that tokenFile names.
	Token Secret
	// RoleID and SecretID are those of AppRole; SecretID may come from a file, as the token may.
	RoleID   string
	SecretID Secret
	// Role is the role to log in with for Kubernetes, and for JWT, where empty means the mount's default role.
	Role string
	// JWT is the content of the tokenFile of kubernetes or jwt.
	JWT Secret
}

// Method is a kind of credential.
type Method string

// The methods. All but TokenGiven and Proxied are exchanged for a token first, at Vault's auth method of this name, which
// by default is mounted under its name.
const (
	TokenGiven  Method = "token"      // a token, as it is
	AppRole     Method = "approle"    // a role ID and a secret ID
	Kubernetes  Method = "kubernetes" // the token of a Kubernetes ServiceAccount
	JWT         Method = "jwt"        // a JWT from another issuer
	Certificate Method = "cert"       // the client certificate of the TLS connection: Vault.ClientCert
	Proxied     Method = "proxy"      // none: the address is Vault Agent's API proxy, which adds its own token
)

// ways are the ways to write a credential: any one of the fields chooses it. The last is only for when there is no other:
// beside another one, its fields are for the connection only.
var ways = []struct {
	method Method
	fields []string
}{
	{TokenGiven, []string{"token"}},
	{TokenGiven, []string{"tokenFile"}},
	{AppRole, []string{"roleID", "secretID", "secretIDFile"}},
	{Kubernetes, []string{"kubernetes"}},
	{JWT, []string{"jwt"}},
	{Proxied, []string{"apiProxy"}},
	{Certificate, []string{"clientCert", "clientKey"}},
}

// credential returns the one credential, and where to use it; namespace is that of the transit engine.
func (p *parser) credential(s section, namespace string) (c Credential) {
	var given []string // the first field of each way that is there
	proxied := strings.EqualFold(s["apiProxy"].text, "true")
	for _, w := range ways {
		first := s.first(w.fields...)
		if first == "" || w.method == Proxied && !proxied || w.method == Certificate && given != nil {
			continue
		}
		c.Method, given = w.method, append(given, first)
	}
	p.appRole(s)
	switch {
	case len(given) > 1:
		p.onlyOne(s, "credential", given)
	case c.Method == Proxied:
		p.noEffect(s, given[0]+"; remove this line", "authPath", "authNamespace")
	case c.Method == TokenGiven:
		p.noEffect(s, given[0]+"; remove this line", "authPath")
	case given != nil:
		c.Path = cmp.Or(s["authPath"].text, string(c.Method))
	case !s.has("apiProxy") || s["apiProxy"].text != "": // a refused one decides whether a credential is missing
		p.missing(s, "token", "token", "no other credential is set either; write one of: token, tokenFile, "+
			"roleID with secretID or secretIDFile, kubernetes, jwt, clientCert with clientKey, apiProxy: true")
	}
	kubernetes, jwt := s["kubernetes"].inner, s["jwt"].inner
	c.Namespace = cmp.Or(s["authNamespace"].text, namespace)
	c.Token = NewSecret(cmp.Or(s["token"].text, s["tokenFile"].text))
	c.RoleID = s["roleID"].text
	c.SecretID = NewSecret(cmp.Or(s["secretID"].text, s["secretIDFile"].text))
	c.Role = cmp.Or(kubernetes["role"].text, jwt["role"].text)
	c.JWT = NewSecret(cmp.Or(kubernetes["tokenFile"].text, jwt["tokenFile"].text))
	return c
}

// appRole refuses half of an AppRole, and two secret IDs.
func (p *parser) appRole(s section) {
	secretID := s.first("secretID", "secretIDFile")
	switch {
	case secretID == "" && s.has("roleID"):
		p.missing(s, "secretID", "roleID", "roleID needs secretID or secretIDFile")
	case secretID != "" && !s.has("roleID"):
		p.missing(s, "roleID", secretID, secretID+" needs the role ID that it was issued for")
	}
	if s.has("secretID") && s.has("secretIDFile") {
		p.onlyOne(s, "secret ID", []string{"secretID", "secretIDFile"})
	}
}

// onlyOne refuses all but that one of some fields which stands first in the file.
func (p *parser) onlyOne(s section, what string, names []string) {
	first := s.first(names...)
	for _, name := range names {
		if name != first {
			p.refuse(s[name].place, fmt.Sprintf("is a second %s, after %s on line %d; keep one of them",
				what, first, s[first].line))
		}
	}
}

// tls sets what authenticates Vault to us and us to Vault.
func (p *parser) tls(s section, v *Vault) {
	v.TLSServerName = s["tlsServerName"].text
	v.CACert = append(v.CACert, s["vaultCACert"].text...) // nil when there is none
	v.ClientCert = append(v.ClientCert, s["clientCert"].text...)
	v.ClientKey = NewSecret(s["clientKey"].text)
	if strings.HasPrefix(v.Address, "http:") {
		unused := []string{"vaultCACert", "tlsServerName"}
		if v.Credential.Method == Certificate {
			p.refuse(s[s.first("clientCert", "clientKey")].place, "cannot log in over http; "+
				"use https in vault.address, or another credential instead of clientCert and clientKey")
		} else {
			unused = append(unused, "clientCert", "clientKey")
		}
		p.noEffect(s, "an http address; use https in vault.address or remove this line", unused...)
	}
	switch hasCert, hasKey := s.has("clientCert"), s.has("clientKey"); {
	case hasCert && !hasKey:
		p.missing(s, "clientKey", "clientCert", "clientCert needs a file with its private key")
	case hasKey && !hasCert:
		p.missing(s, "clientCert", "clientKey", "clientKey needs a file with its certificate")
	case v.ClientCert != nil && !v.ClientKey.IsZero():
		if _, err := tls.X509KeyPair(v.ClientCert, []byte(v.ClientKey.Reveal())); err != nil {
			p.refuse(s["clientKey"].place, "does not match the first certificate in clientCert")
		}
	}
}

// noEffect refuses each of the fields that is there.
func (p *parser) noEffect(s section, with string, names ...string) {
	for _, name := range names {
		if s.has(name) {
			p.refuse(s[name].place, "has no effect with "+with)
		}
	}
}

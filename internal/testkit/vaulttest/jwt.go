// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

const (
	kindKubernetes = "kubernetes"
	kindJWT        = "jwt"
)

// The service account of every accepted JWT.
const (
	serviceAccountNamespace = "kube-system"
	serviceAccountName      = "trousseau"
	serviceAccountUID       = "11111111-2222-3333-4444-555555555555"
	serviceAccountSubject   = "system:serviceaccount:" + serviceAccountNamespace + ":" + serviceAccountName
)

// Kubernetes is a Kubernetes auth method: a role and a service account's JWT are exchanged for a token.
// The fake does not parse JWTs: it knows the ones that Accept and NewJWT have registered.
type Kubernetes struct{ bearerMethod }

// JWT is a JWT auth method: a role and a JWT are exchanged for a token.
// The fake does not parse JWTs: it knows the ones that Accept and NewJWT have registered.
type JWT struct{ bearerMethod }

// bearerMethod is what Kubernetes and JWT have in common.
type bearerMethod struct{ AuthMethod }

// EnableKubernetes enables a Kubernetes method in a namespace ("" is the root) and creates the namespace if it is
// missing. The path is without auth/; clients default to "kubernetes".
func (s *Server) EnableKubernetes(namespace, path string) *Kubernetes {
	return &Kubernetes{bearerMethod{s.enable(kindKubernetes, namespace, path)}}
}

// EnableJWT enables a JWT method in a namespace ("" is the root) and creates the namespace if it is missing. The
// path is without auth/; clients default to "jwt".
func (s *Server) EnableJWT(namespace, path string) *JWT {
	return &JWT{bearerMethod{s.enable(kindJWT, namespace, path)}}
}

// SetDefaultRole sets the role for logins without a role; "" means that they are refused.
func (j *JWT) SetDefaultRole(name string) { j.with(func(m *authMount) { m.defaultRole = name }) }

// SetRole creates or replaces a role. Token describes the tokens issued at login; Namespace and NotRenewable are
// not supported, and they are always orphans.
func (b *bearerMethod) SetRole(name string, token TokenOptions) {
	b.setRole(name, token, func(r *role) {
		r.bound = bound{names: []string{serviceAccountName}, namespaces: []string{serviceAccountNamespace}}
	})
}

// NewJWT makes a JWT and accepts it for a role. Its signature is random.
func (b *bearerMethod) NewJWT(role string) string {
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	jwt := part(`{"alg":"RS256","typ":"JWT"}`) + "." +
		part(`{"sub":"`+serviceAccountSubject+`","jti":"`+newUUID()+`"}`) + "." +
		part(rand.Text()+rand.Text())
	b.Accept(role, jwt)
	return jwt
}

// Accept makes a JWT valid for logins to a role, in addition to its other roles. The role need not exist yet.
func (b *bearerMethod) Accept(role, jwt string) {
	b.store.secrets.add(jwt)
	b.with(func(m *authMount) {
		m.bearers[jwt] = append(m.bearers[jwt], role)
	})
}

// identifyKubernetes makes its checks in the order of vault-plugin-auth-kubernetes, path_login.go.
func (m *authMount) identifyKubernetes(f *fields) (identity, *reply) {
	name, jwt := f.text("role"), f.text("jwt")
	r, accepting := m.roles[name], m.bearers[jwt]
	switch {
	case name == "":
		return identity{}, refused(http.StatusBadRequest, "missing role")
	case jwt == "":
		return identity{}, refused(http.StatusBadRequest, "missing jwt")
	case r == nil:
		return identity{}, refused(http.StatusBadRequest, fmt.Sprintf("invalid role name %q", name))
	case accepting == nil:
		return identity{}, refused(http.StatusForbidden, "permission denied")
	case !slices.Contains(accepting, name) || !admits(r.bound.names, serviceAccountName):
		return identity{}, refused(http.StatusForbidden, "service account name not authorized")
	case !admits(r.bound.namespaces, serviceAccountNamespace):
		return identity{}, refused(http.StatusForbidden, "namespace not authorized")
	}
	return identity{
		role: r, alias: serviceAccountUID, display: serviceAccountNamespace + "-" + serviceAccountName,
		metadata: map[string]string{
			"role":                        name,
			"service_account_name":        serviceAccountName,
			"service_account_namespace":   serviceAccountNamespace,
			"service_account_secret_name": "",
			"service_account_uid":         serviceAccountUID,
		},
	}, nil
}

// identifyJWT makes its checks in the order of vault-plugin-auth-jwt, path_login.go.
func (m *authMount) identifyJWT(f *fields) (identity, *reply) {
	const validating = "error validating token: "
	name, jwt := f.text("role"), strings.TrimSpace(f.text("jwt"))
	if name == "" {
		name = m.defaultRole
	}
	r, accepting := m.roles[name], m.bearers[jwt]
	switch {
	case name == "":
		return identity{}, refused(http.StatusBadRequest, "missing role")
	case r == nil:
		return identity{}, refused(http.StatusBadRequest, fmt.Sprintf("role %q could not be found", name))
	case jwt == "":
		return identity{}, refused(http.StatusBadRequest, "missing token")
	case accepting == nil && strings.Count(jwt, ".") != 2:
		return identity{}, refused(http.StatusBadRequest,
			validating+"error verifying token signature: go-jose/go-jose: compact JWS format must have three parts")
	case accepting == nil:
		return identity{}, refused(http.StatusBadRequest,
			validating+"error verifying token signature: no known key successfully validated the token signature")
	case !slices.Contains(accepting, name):
		return identity{}, refused(http.StatusBadRequest, validating+"invalid subject (sub) claim")
	}
	return identity{role: r, alias: serviceAccountSubject, display: serviceAccountSubject, metadata: map[string]string{"role": name}}, nil
}

// SPDX-License-Identifier: Apache-2.0

package vault

import "encoding/json"

// Credential is how a [Client] comes by the token for its calls. It is made by
// one of the functions below, and printing it shows no secret. The zero
// Credential is none: Vault then denies every call.
type Credential struct {
	// given is the token itself, login the body of the request that gets one.
	// Both are funcs, because printers follow strings and pointers but see only
	// the address of a func.
	given func() string
	login func() []byte
	// path is the mount of the auth method that login is sent to.
	path string
	// proxied means that something between us and Vault adds the token.
	proxied bool
}

// Given is a token that somebody else has made and answers for.
func Given(token string) Credential {
	return Credential{given: func() string { return token }}
}

// AppRole logs in with a role ID and a secret ID at the AppRole method mounted
// at path.
func AppRole(path, roleID, secretID string) Credential {
	return exchanged(path, struct {
		RoleID   string `json:"role_id"`
		SecretID string `json:"secret_id"`
	}{roleID, secretID})
}

// JWT logs in with a signed token of the platform, at the JWT method or, with
// the token of a ServiceAccount, at the Kubernetes method mounted at path. An
// empty role leaves the choice to the JWT method.
func JWT(path, role, jwt string) Credential {
	return exchanged(path, struct {
		Role string `json:"role,omitempty"`
		JWT  string `json:"jwt"`
	}{role, jwt})
}

// Certificate logs in with the client certificate of [Config], at the TLS
// certificate method mounted at path.
func Certificate(path string) Credential {
	return exchanged(path, struct{}{})
}

// Proxied has no token: the address is that of a Vault Agent or Vault Proxy
// whose API proxy adds its own.
func Proxied() Credential { return Credential{proxied: true} }

func exchanged(path string, body any) Credential {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // structs of strings can always be marshaled
	}
	return Credential{login: func() []byte { return text }, path: path}
}

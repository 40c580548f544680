// SPDX-License-Identifier: Apache-2.0

package vault

// Credential says how to authenticate to Vault. Make one with a function below;
// printing it shows no secret. The zero Credential is that of [Proxied].
type Credential struct {
	// given is the token itself, login the body of the request that obtains one.
	// Both are funcs, because printers follow strings and pointers but see only
	// the address of a func.
	given func() string
	login func() []byte
	// path is the mount of the auth method that login is sent to.
	path string
}

// Given is an existing token, issued outside this process.
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
// a ServiceAccount token, at the Kubernetes method mounted at path. With an
// empty role the JWT method chooses its default.
func JWT(path, role, jwt string) Credential {
	return exchanged(path, struct {
		Role string `json:"role,omitempty"`
		JWT  string `json:"jwt"`
	}{role, jwt})
}

// Certificate logs in with the client certificate of [Config], at the TLS
// certificate method mounted at path.
func Certificate(path string) Credential { return exchanged(path, struct{}{}) }

// Proxied has no token: the address is that of a Vault Agent or Vault Proxy
// whose API proxy adds its own.
func Proxied() Credential { return Credential{} }

func exchanged(path string, body any) Credential {
	text := marshal(body)
	return Credential{login: func() []byte { return text }, path: path}
}

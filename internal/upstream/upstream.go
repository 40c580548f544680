// SPDX-License-Identifier: Apache-2.0

// Package upstream says what a configuration means to package vault: which Vault
// it names, what to log in with, and what ciphertexts are bound to.
package upstream

import (
	"fmt"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Config is how to dial the Vault that v names. Metrics and Transport are left to
// the caller.
func Config(v *config.Vault) vault.Config {
	return vault.Config{
		Addresses:     append([]string{v.Address}, v.Addresses...),
		Namespace:     v.Namespace,
		Mount:         v.TransitPath,
		Credential:    credential(v.Credential),
		AuthNamespace: v.Credential.Namespace,
		CACert:        v.CACert,
		ServerName:    v.TLSServerName,
		ClientCert:    v.ClientCert,
		ClientKey:     []byte(v.ClientKey.Reveal()),
	}
}

func credential(c config.Credential) vault.Credential {
	switch c.Method {
	case config.TokenGiven:
		return vault.Given(c.Token.Reveal())
	case config.AppRole:
		return vault.AppRole(c.Path, c.RoleID, c.SecretID.Reveal())
	case config.Kubernetes, config.JWT:
		return vault.JWT(c.Path, c.Role, c.JWT.Reveal())
	case config.Certificate:
		return vault.Certificate(c.Path)
	case config.Proxied:
		return vault.Proxied()
	}
	panic(fmt.Sprintf("upstream: no such credential: %s", c.Method))
}

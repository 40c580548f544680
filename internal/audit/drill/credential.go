// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"fmt"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// credential is what the configuration means to package vault.
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
	panic(fmt.Sprintf("drill: no such credential: %s", c.Method))
}

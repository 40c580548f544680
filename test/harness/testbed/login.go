// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// KeepSecret adds a secret that no trousseau of the cluster may log. Vault's tokens
// are always included. The logs are searched at the end of the test.
func (c *Cluster) KeepSecret(secrets ...string) { c.secrets = append(c.secrets, secrets...) }

// LeasesFrom returns the leases of live tokens issued by logins at an auth method,
// one for each token; batch tokens have none. The mount is given without "auth/".
// The tokens themselves are not looked up: Vault revokes a token that is looked up
// by accessor before its lease is written (lookupInternal in Vault's
// token_store.go).
func (v *Vault) LeasesFrom(ctx context.Context, mount string) ([]string, error) {
	active, err := v.Active(ctx)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Leases []string `json:"keys"`
		} `json:"data"`
	}
	err = active.call(ctx, "LIST", "sys/leases/lookup/auth/"+mount+"/login", nil, &answer)
	if err != nil && strings.Contains(err.Error(), "404 Not Found") {
		return nil, nil // Vault's answer if there is none
	}
	return answer.Data.Leases, err
}

// Agent is a Vault Agent that logs in with AppRole. Its clients need no credential
// of their own.
type Agent struct {
	*Server
	// Sink is the file to which it writes its token.
	Sink string
	// URL is the address of its API proxy. It adds its token to requests that have
	// none, and refuses requests without the header X-Vault-Request.
	URL string
}

const agentConfig = `vault {
  address = "https://%[1]s"
  ca_cert = "%[2]s"
}

auto_auth {
  method "approle" {
    mount_path = "auth/%[3]s"
    config = {
      role_id_file_path                   = "%[4]s"
      secret_id_file_path                 = "%[5]s"
      remove_secret_id_file_after_reading = false
    }
  }
  sink "file" {
    config = {
      path = "%[6]s"
      mode = 0600
    }
  }
}

api_proxy {
  use_auto_auth_token = true
}

listener "tcp" {
  address                = "%[7]s"
  tls_disable            = true
  require_request_header = true
}
`

// NewAgent prepares a Vault Agent that logs in at the AppRole method at mount. The
// caller starts it.
func (c *Cluster) NewAgent(name, mount, roleID, secretID string) *Agent {
	c.t.Helper()
	dir, addr := filepath.Join(c.Dir, name), c.freeAddr()
	a := &Agent{Sink: filepath.Join(dir, "token"), URL: "http://" + addr}
	config := c.Write(filepath.Join(dir, "agent.hcl"), fmt.Sprintf(agentConfig, c.Proxy.Addr, c.ca.File, mount,
		c.Write(filepath.Join(dir, "role-id"), roleID), c.Write(filepath.Join(dir, "secret-id"), secretID), a.Sink, addr))
	a.Server = c.newServer(name, c.tool("vault"), "agent", "-config="+config)
	return a
}

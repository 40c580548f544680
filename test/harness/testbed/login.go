// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// KeepSecret names what no trousseau of the cluster may log, beside Vault's
// tokens. It is searched for at the end.
func (c *Cluster) KeepSecret(secrets ...string) { c.secrets = append(c.secrets, secrets...) }

// LeasesFrom returns the leases of the live tokens that logins at an auth method
// have yielded, one for each; batch tokens have none. The mount is without
// "auth/". Nothing is asked about the tokens themselves: Vault revokes one that is
// looked up by its accessor before its lease has been written (lookupInternal in
// Vault's token_store.go).
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
		return nil, nil // what Vault says if there is none
	}
	return answer.Data.Leases, err
}

// Agent is a Vault Agent that logs in by AppRole, for others that then need no
// credential.
type Agent struct {
	*Server
	// Sink is the file that it writes its token to.
	Sink string
	// URL is where it passes requests on, with its token if they bring none.
	// Those without the header X-Vault-Request are refused.
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

// NewAgent prepares a Vault Agent that logs in at the AppRole method at mount,
// for the caller to start.
func (c *Cluster) NewAgent(name, mount, roleID, secretID string) *Agent {
	c.t.Helper()
	dir, addr := filepath.Join(c.Dir, name), c.freeAddr()
	a := &Agent{Sink: filepath.Join(dir, "token"), URL: "http://" + addr}
	config := c.Write(filepath.Join(dir, "agent.hcl"), fmt.Sprintf(agentConfig, c.Proxy.Addr, c.ca.File, mount,
		c.Write(filepath.Join(dir, "role-id"), roleID), c.Write(filepath.Join(dir, "secret-id"), secretID), a.Sink, addr))
	a.Server = c.newServer(name, c.tool("vault"), "agent", "-config="+config)
	return a
}

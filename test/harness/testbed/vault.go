// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// VaultOptions describe a Vault.
type VaultOptions struct {
	// Name distinguishes it from other Vaults in the bed; "vault" if empty.
	Name string
	// Nodes is the number of nodes; 0 means 1. Three survive the loss of one.
	Nodes int
}

// Vault is a Vault with raft storage and TLS, of one or more nodes. Data survives a restart of all nodes; they
// start sealed.
type Vault struct {
	// Nodes are in the order in which they were started. Any of them may be active.
	Nodes []*VaultNode

	bed    *Bed
	client *http.Client
	root   string // token
	unseal string // the only share of the unseal key
}

// VaultNode is one server of a [Vault].
type VaultNode struct {
	*Server
	// Addr is the listen address (host:port).
	Addr string

	vault *Vault
}

// vaultWithin bounds each of Vault's slow steps: start, election, unsealing.
const vaultWithin = 60 * time.Second

// StartVault starts, initializes and unseals a Vault. Only the default engines are mounted.
func (b *Bed) StartVault(o VaultOptions) *Vault {
	b.t.Helper()
	if o.Name == "" {
		o.Name = "vault"
	}
	v := &Vault{bed: b, client: b.ca.client()}
	for i := range max(1, o.Nodes) {
		v.Nodes = append(v.Nodes, v.newNode(fmt.Sprintf("%s%d", o.Name, i+1)))
	}
	first := v.Nodes[0]
	first.Start()
	var keys struct {
		Keys []string `json:"keys_base64"`
		Root string   `json:"root_token"`
	}
	b.Await(vaultWithin, o.Name+" to be initialised", func(ctx context.Context) error {
		return first.call(ctx, http.MethodPut, "sys/init", map[string]int{"secret_shares": 1, "secret_threshold": 1}, &keys)
	})
	v.root, v.unseal = keys.Root, keys.Keys[0]
	first.Unseal()
	v.AwaitActive()
	for _, node := range v.Nodes[1:] {
		node.Start()
		node.Unseal()
	}
	return v
}

// The second and later nodes join the first. An election takes about one second instead of the usual five
// (performance_multiplier).
const vaultConfig = `disable_mlock = true
api_addr      = "https://%[1]s"
cluster_addr  = "https://%[2]s"

listener "tcp" {
  address         = "%[1]s"
  cluster_address = "%[2]s"
  tls_cert_file   = "%[3]s"
  tls_key_file    = "%[4]s"
}

storage "raft" {
  path                   = "%[5]s"
  node_id                = "%[6]s"
  performance_multiplier = 1
%[7]s}
`

const vaultJoin = `
  retry_join {
    leader_api_addr     = "https://%s"
    leader_ca_cert_file = "%s"
  }
`

func (v *Vault) newNode(name string) *VaultNode {
	v.bed.t.Helper()
	b := v.bed
	data := filepath.Join(b.Dir, name+".raft")
	if err := os.Mkdir(data, 0o700); err != nil {
		b.t.Fatal(err)
	}
	join := ""
	if len(v.Nodes) > 0 {
		join = fmt.Sprintf(vaultJoin, v.Nodes[0].Addr, b.ca.File)
	}
	addr := b.freeAddr()
	cert, key := b.issue(name)
	config := b.Write(name+".hcl", fmt.Sprintf(vaultConfig, addr, b.freeAddr(), cert, key, data, name, join))
	return &VaultNode{Server: b.newServer(name, b.tool("vault"), "server", "-config="+config), Addr: addr, vault: v}
}

// Unseal waits until the node answers and unseals it. A node that has just joined learns in this time that the
// others are initialized. It gets the key only once: a joining node later unseals itself with it. If another call
// has unsealed it before then, both of its standby loops keep running and it ignores step-downs.
func (n *VaultNode) Unseal() {
	n.vault.bed.t.Helper()
	given := false
	n.vault.bed.Await(vaultWithin, n.Name+" to be unsealed", func(ctx context.Context) error {
		var status struct {
			Sealed bool `json:"sealed"`
		}
		method, path, body := http.MethodPut, "sys/unseal", any(map[string]string{"key": n.vault.unseal})
		if given {
			method, path, body = http.MethodGet, "sys/seal-status", nil
		}
		if err := n.call(ctx, method, path, body, &status); err != nil {
			return err
		}
		given = true
		if status.Sealed {
			return errors.New("it is still sealed")
		}
		return nil
	})
}

// Seal seals the node, which must be the active one.
func (n *VaultNode) Seal() {
	n.vault.bed.t.Helper()
	n.must(http.MethodPut, "sys/seal", nil)
}

// StepDown makes this node, which must be the active one, a standby. Another node is elected.
func (n *VaultNode) StepDown() {
	n.vault.bed.t.Helper()
	n.must(http.MethodPut, "sys/step-down", nil)
}

func (n *VaultNode) must(method, path string, body any) {
	n.vault.bed.t.Helper()
	if err := n.call(n.vault.bed.t.Context(), method, path, body, nil); err != nil {
		n.vault.bed.t.Fatal(err)
	}
}

// Active returns the node that is active now, or an error if none is.
func (v *Vault) Active(ctx context.Context) (*VaultNode, error) {
	var errs []error
	for _, n := range v.Nodes {
		// sys/health answers 200 if the node is active, 429 if it stands by.
		err := n.call(ctx, http.MethodGet, "sys/health", nil, nil)
		if err == nil {
			return n, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// Serves returns nil if any node currently answers a read of path.
func (v *Vault) Serves(ctx context.Context, path string) error {
	var errs []error
	for _, n := range v.Nodes {
		ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		err := n.call(ctx, http.MethodGet, path, nil, nil)
		cancel()
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Copied says that a snapshot of another Vault has been restored here by force: its tokens
// and unseal keys are now those of this one, whose only node is restarted and unsealed.
func (v *Vault) Copied(from *Vault) {
	v.bed.t.Helper()
	v.root, v.unseal = from.root, from.unseal
	v.Nodes[0].Stop()
	v.Nodes[0].Start()
	v.Nodes[0].Unseal()
	v.AwaitActive()
}

// AwaitActive waits until a node is active and returns it.
func (v *Vault) AwaitActive() *VaultNode {
	v.bed.t.Helper()
	var active *VaultNode
	v.bed.Await(vaultWithin, "an active Vault node", func(ctx context.Context) (err error) {
		active, err = v.Active(ctx)
		return err
	})
	return active
}

// Addresses returns host:port of all nodes.
func (v *Vault) Addresses() []string {
	var addrs []string
	for _, n := range v.Nodes {
		addrs = append(addrs, n.Addr)
	}
	return addrs
}

// CLI runs the vault command as root against the active node and returns its trimmed output.
func (v *Vault) CLI(args ...string) string {
	v.bed.t.Helper()
	return v.CLIWithInput("", args...)
}

// CLIWithInput is CLI with text on standard input.
func (v *Vault) CLIWithInput(stdin string, args ...string) string {
	v.bed.t.Helper()
	out, err := v.Try(v.root, stdin, args...)
	if err != nil {
		v.bed.t.Fatal(err)
	}
	return out
}

// Try runs the vault command with a token. It returns the trimmed output, or an error.
func (v *Vault) Try(token, stdin string, args ...string) (string, error) {
	v.bed.t.Helper()
	cmd := exec.CommandContext(v.bed.t.Context(), v.bed.tool("vault"), args...)
	cmd.Env = v.environment("https://"+v.AwaitActive().Addr, token)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := v.bed.command(cmd)
	return strings.TrimSpace(out), err
}

// environment returns the environment of the vault command.
func (v *Vault) environment(address, token string) []string {
	return v.bed.environment("VAULT_ADDR="+address, "VAULT_TOKEN="+token, "VAULT_CACERT="+v.bed.ca.File)
}

// call calls the node's API as root. It decodes the response into answer unless that is nil. Any status but 2xx is
// an error.
func (n *VaultNode) call(ctx context.Context, method, path string, body, answer any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+n.Addr+"/v1/"+path, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	if n.vault.root != "" {
		req.Header.Set("X-Vault-Token", n.vault.root)
	}
	resp, err := n.vault.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s at %s: %s: %s", method, path, n.Name, resp.Status, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

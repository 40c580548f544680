// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"bytes"
	"testing"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// cluster starts n nodes of one Vault with the key kek.
func cluster(t *testing.T, n int, options vaulttest.Options) []*vaulttest.Server {
	t.Helper()
	nodes := []*vaulttest.Server{vaulttest.Start(t, options)}
	nodes[0].CreateKey("kek")
	options.Join = nodes[0]
	for len(nodes) < n {
		nodes = append(nodes, vaulttest.Start(t, options))
	}
	return nodes
}

// dialAll returns a client of each node.
func dialAll(t *testing.T, nodes []*vaulttest.Server, credential vault.Credential) []*vault.Client {
	t.Helper()
	cfg := vault.Config{Mount: "transit", Credential: credential}
	var authorities [][]byte
	for _, node := range nodes {
		cfg.Addresses = append(cfg.Addresses, node.URL())
		authorities = append(authorities, node.CAPEM())
	}
	cfg.CACert = bytes.Join(authorities, nil)
	clients, err := vault.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(clients[0].Close)
	return clients
}

// Each client calls its own node, and only that.
func TestOneClientForEachNode(t *testing.T) {
	nodes := cluster(t, 3, vaulttest.Options{TLS: true})
	for i, c := range dialAll(t, nodes, vault.Given(nodes[0].KMSToken("kek"))) {
		if got, want := c.Address(), nodes[i].URL(); got != want {
			t.Errorf("client %d is of %s, want %s", i, got, want)
		}
		if err := encrypt(bounded(t), c); err != nil {
			t.Error(err)
		}
		nodes[i].Seal()
		wantError(t, c, encrypt(bounded(t), c), fault.Sealed, "encrypting with transit/kek at ADDRESS: vault is sealed or has no active node (503)")
	}
	for i, node := range nodes {
		if got := node.Total(); got != 2 {
			t.Errorf("node %d got %d requests, want 2", i, got)
		}
	}
}

// A login at one node is a login at all.
func TestLoginIsShared(t *testing.T) {
	nodes := cluster(t, 2, vaulttest.Options{TLS: true})
	m := nodes[0].EnableAppRole("", "approle")
	clients := dialAll(t, nodes, vault.AppRole("approle", m.SetRole("trousseau", kmsHour), m.NewSecretID("trousseau")))
	if _, err := clients[1].Login(bounded(t)); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		if err := encrypt(bounded(t), c); err != nil {
			t.Error(err)
		}
	}
	if err := clients[0].Revoke(bounded(t)); err != nil || len(m.Tokens()) != 0 {
		t.Errorf("revoking at the other node: %v, %d tokens are left", err, len(m.Tokens()))
	}
}

// A redirect passes the token neither to the target node nor to another host.
func TestRedirectingStandby(t *testing.T) {
	const redirects = "vault redirected the request, which is never followed with the token; use an address that reaches the active node"
	stranger := vaulttest.Start(t)
	nodes := cluster(t, 2, vaulttest.Options{TLS: true})
	c := dialAll(t, nodes, vault.Given(nodes[0].KMSToken("kek")))[0]
	for _, target := range []*vaulttest.Server{nodes[1], stranger} {
		remove := nodes[0].RedirectTo(target.URL())
		for what, call := range map[string]func() error{
			"encrypting with transit/kek": func() error { return encrypt(bounded(t), c) },
			"decrypting with transit/kek": func() error {
				_, err := c.Decrypt(bounded(t), "kek", []byte("vault:v1:AAAA"), nil)
				return err
			},
			"reading key transit/kek": func() error { _, err := c.ReadKey(bounded(t), "kek"); return err },
			"looking up the token":    func() error { _, err := c.LookupSelf(bounded(t)); return err },
		} {
			wantError(t, c, call(), fault.Unavailable, what+" at ADDRESS: "+redirects)
			if target.Total() != 0 || target.ConnectionsOpened() != 0 {
				t.Errorf("%s: the redirect was followed", what)
			}
		}
		remove()
	}
}

func TestCloseCoversAllNodes(t *testing.T) {
	nodes := cluster(t, 2, vaulttest.Options{TLS: true})
	clients := dialAll(t, nodes, vault.Given(nodes[0].KMSToken("kek")))
	for i, c := range clients {
		if err := encrypt(bounded(t), c); err != nil {
			t.Fatal(err)
		}
		if got := nodes[i].ConnectionsOpened(); got != 1 {
			t.Errorf("node %d: got %d connections, want 1", i, got)
		}
	}
	clients[0].Close()
	for i, node := range nodes {
		if err := node.WaitConnections(bounded(t), 0); err != nil {
			t.Errorf("node %d: %v", i, err)
		}
	}
}

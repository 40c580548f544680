// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator moves to another key in another Vault, with a second Trousseau beside the
// first one, goes back in the middle, and moves again.
func TestSecondVault(t *testing.T) {
	s := newSite(t, "2 a key in a second Vault", "vault-to-vault.md#second-", testbed.Options{})
	s.installWithToken()
	other := s.StartVault(testbed.VaultOptions{Name: "other"})
	s.at(other)
	s.variables["TOKEN"] = filepath.Join(s.Dir, "new-token")
	s.run("second-key", nil)
	var fresh []*testbed.Trousseau
	var ops []string
	for _, n := range s.Nodes {
		s.run("second-config", n)
		p := s.NewTrousseau("new-"+n.Trousseau.Name, filepath.Join(n.Dir, "new.yaml"), filepath.Join(n.Dir, "run", "new.sock"), "--probe-interval=1s")
		p.Start()
		p.AwaitReady()
		fresh, ops = append(fresh, p), append(ops, p.OpsAddr)
	}
	s.variables["NEW_OPS"] = strings.Join(ops, ",")

	s.onEach("second-read")
	s.onEach("second-write")
	s.onEach("second-back")
	s.mustHaveBothWays("kms v2 new ")
	s.onEach("second-write")
	s.step("re-encrypted", func() { s.run("second-reencrypt", s.Nodes[0]) })
	s.mustBeStored("kms v2 new " + fresh[0].KeyID())
	s.onEach("second-only")
	s.step("the first Vault is gone", func() {
		for _, n := range s.Nodes {
			n.Trousseau.Stop()
		}
		s.Vault.Nodes[0].Stop()
		for _, n := range s.Nodes {
			s.users.restart(n.APIServer)
		}
	})
}

// An operator moves to another key in the same Vault, goes back in the middle, and moves
// again. No process is restarted.
func TestSecondKey(t *testing.T) {
	s := newSite(t, "3 a second key in the same Vault", "vault-to-vault.md#keys-", testbed.Options{})
	s.installWithToken()
	first := s.Nodes[0].Trousseau
	old := first.KeyID()
	s.run("keys-create", nil)
	s.reload("keys-read")
	if id := first.KeyID(); id != old {
		t.Errorf("key_id is %s, want still %s", id, old)
	}
	s.reload("keys-write")
	s.step("re-encrypted", func() { s.run("keys-reencrypt", nil) })
	fresh := first.KeyID()
	if !strings.HasPrefix(fresh, "transit/kek-2/v1@") {
		t.Errorf("key_id is %s, want one of kek-2", fresh)
	}
	s.mustBeStored("kms v2 trousseau " + fresh)

	s.reload("keys-read") // back
	s.step("re-encrypted, back", func() { s.run("keys-reencrypt", nil) })
	s.mustBeStored("kms v2 trousseau " + old)
	s.reload("keys-write")
	s.step("re-encrypted again", func() { s.run("keys-reencrypt", nil) })
	s.mustBeStored("kms v2 trousseau " + fresh)
	s.reload("keys-only")
	s.step("cold caches, and only the new key allowed", func() {
		s.run("keys-policy", nil)
		for _, n := range s.Nodes {
			s.users.restart(n.APIServer)
		}
	})
}

// The key moves to another Vault, once by a backup of the key and once by a snapshot of
// the Vault. key_id does not change, and nothing is rewritten.
func TestMovedKey(t *testing.T) {
	s := newSite(t, "4 the same key in another Vault", "vault-to-vault.md#moved-", testbed.Options{})
	s.installWithToken()
	id := s.Nodes[0].Trousseau.KeyID()
	s.Vault.CLI("write", "-f", "transit/keys/"+testbed.Key+"/rotate")
	s.Await(awaitRotation, "every trousseau to have version 2", s.allHaveLeft(id))
	id = s.Nodes[0].Trousseau.KeyID()
	mustKeep := func() {
		t.Helper()
		for _, n := range s.Nodes {
			if got := n.Trousseau.KeyID(); got != id {
				t.Fatalf("%s has key_id %s, want %s as before", n.Trousseau.Name, got, id)
			}
		}
	}

	s.run("moved-backup", nil)
	restored := s.StartVault(testbed.VaultOptions{Name: "restored"})
	s.at(restored)
	s.variables["TOKEN"] = filepath.Join(s.Dir, "new-token")
	s.run("moved-restore", nil)
	s.reload("moved-switch")
	mustKeep()
	s.reload("moved-back")
	mustKeep()

	s.at(s.Vault)
	s.run("moved-snapshot", nil)
	copied := s.StartVault(testbed.VaultOptions{Name: "copied"})
	s.at(copied)
	s.run("moved-copy", nil)
	copied.Copied(s.Vault)
	s.reload("moved-address")
	mustKeep()
	s.reload("moved-back")
	s.reload("moved-address")
	mustKeep()
	s.step("the first Vault is gone, and caches are cold", func() {
		s.Vault.Nodes[0].Stop()
		for _, n := range s.Nodes {
			s.users.restart(n.APIServer)
		}
	})
	mustKeep()
	s.step("rotated in its new place", func() {
		copied.CLI("write", "-f", "transit/keys/"+testbed.Key+"/rotate")
		s.Await(awaitRotation, "every trousseau to have version 3", s.allHaveLeft(id))
	})
}

// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// twoNodes adds a second node to the bench's Vault, and returns it and a
// configuration with both.
func (b *bench) twoNodes() (*vaulttest.Server, settings) {
	b.t.Helper()
	second, err := vaulttest.New(vaulttest.Options{InProcess: true, Join: b.vault})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(second.Close)
	b.hosts["vault-2"] = second.RoundTripper()
	return second, settings{extra: "  addresses: [http://vault-2:8200]\n"}
}

// wantVault checks with which node the configuration was last adopted.
func (b *bench) wantVault(url string) {
	b.t.Helper()
	var got any
	for _, e := range b.logs.FilterMessage(nowInUse).All() {
		got = e.ContextMap()["vault"]
	}
	if got != url {
		b.t.Errorf("adopted with %v, want %s", got, url)
	}
}

// nodeFaults are possible faults of the first node.
var nodeFaults = map[string]func(*bench){
	"sealed": func(b *bench) { b.vault.Seal() },
	"hangs":  func(b *bench) { b.vault.Hang() },
}

// TestFirstLoadWithoutTheFirstNode checks that the other node is sufficient.
func TestFirstLoadWithoutTheFirstNode(t *testing.T) {
	for name, fault := range nodeFaults {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				_, both := b.twoNodes()
				fault(b)
				b.load(both)
				b.after(requestTimeout + time.Second)
				b.wantVault("http://vault-2:8200")
				b.roundTrip()
			})
		})
	}
}

// TestNodeFailsUnderLoad checks that no request fails and that a reload finds the
// other node.
func TestNodeFailsUnderLoad(t *testing.T) {
	for name, fault := range nodeFaults {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				second, both := b.twoNodes()
				b.load(both)
				b.wantVault("http://vault:8200")
				if got := second.Total(); got != 0 {
					t.Errorf("%d calls to the second node before it was needed", got)
				}
				fault(b)
				b.vault.ResetCounts()
				for range 3 {
					b.roundTrip()
				}
				if got := b.vault.Total(); got != 1 {
					t.Errorf("%d calls to the failed node, want 1", got)
				}
				b.load(both)
				b.after(requestTimeout)
				b.wantVault("http://vault-2:8200")
				if times, problem := b.logged(notUsed); times != 0 {
					t.Errorf("the reload failed first: %s", problem)
				}
			})
		})
	}
}

// TestBothNodesFailInTurn checks that requests move to the other node and back.
func TestBothNodesFailInTurn(t *testing.T) {
	run(t, func(b *bench) {
		second, both := b.twoNodes()
		b.load(both)
		for range 3 {
			b.vault.Seal()
			b.roundTrip()
			b.vault.Unseal()
			second.Seal()
			b.roundTrip()
			second.Unseal()
		}
		if err := b.Degraded(); err != nil {
			t.Errorf("degraded: %v", err)
		}
	})
}

// TestIdleNodeFails checks that the probe moves to the other node, without an error
// for callers.
func TestIdleNodeFails(t *testing.T) {
	for name, fault := range nodeFaults {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				_, both := b.twoNodes()
				b.load(both)
				fault(b)
				b.after(2 * probeInterval)
				if times, problem := b.logged("KEK cannot be used"); times != 0 || b.Degraded() != nil {
					t.Errorf("degraded: %s", problem)
				}
			})
		})
	}
}

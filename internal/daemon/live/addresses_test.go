// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// twoNodes adds a second node to the bench's Vault, and returns it with the
// configuration of both.
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

// wantVault checks which node the configuration was last adopted with.
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

// nodeFaults are what may be wrong with the first node.
var nodeFaults = map[string]func(*bench){
	"sealed": func(b *bench) { b.vault.Seal() },
	"hangs":  func(b *bench) { b.vault.Hang() },
}

// TestFirstLoadWithoutTheFirstNode: the other node is as good.
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

// TestNodeFailsUnderLoad: no request fails, and a reload finds the other node.
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

// TestBothNodesFailInTurn: requests move on, and back.
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

// TestIdleNodeFails: the probe that finds out goes on to the other node, and
// nobody hears of it.
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

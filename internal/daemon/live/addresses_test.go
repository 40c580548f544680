// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
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

const nodeUnusable = "Vault node unusable"

// node returns whether a node is usable, as the metric tells; -1 if it does not.
func (b *bench) node(address string) float64 {
	b.t.Helper()
	return b.ofVault("trousseau_vault_node_usable", address)
}

// ofVault returns the value of a metric for an address; -1 if there is none.
func (b *bench) ofVault(name, address string) float64 {
	b.t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == address {
				return m.GetGauge().GetValue()
			}
		}
	}
	return -1
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
				b.after(2 * time.Second)
				b.wantVault("http://vault-2:8200")
				b.roundTrip()
				if first, second := b.node("http://vault:8200"), b.node("http://vault-2:8200"); first != 0 || second != 1 {
					t.Errorf("node_usable = %v and %v, want 0 and 1", first, second)
				}
				if times, _ := b.logged(nodeUnusable); times != 1 {
					t.Errorf("warned %d times of the first node", times)
				}
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
				_, both := b.twoNodes()
				b.load(both)
				b.wantVault("http://vault:8200")
				if got := b.node("http://vault-2:8200"); got != 1 {
					t.Errorf("node_usable = %v for the second node before it is needed", got)
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

// TestWrongSecondNode checks that a blip of the first node never ends on one that cannot serve.
func TestWrongSecondNode(t *testing.T) {
	for name, second := range map[string]func(*bench) *vaulttest.Server{
		"another cluster, token unknown": func(b *bench) *vaulttest.Server {
			other := inProcess(b.t)
			other.CreateKey("kek")
			return other
		},
		"no such route": func(b *bench) *vaulttest.Server {
			other := inProcess(b.t)
			other.FailNext(0, 404, `{"errors":["no handler for route \"transit/encrypt/kek\". route entry not found."]}`)
			return other
		},
		"key does not exist": func(b *bench) *vaulttest.Server {
			other := inProcess(b.t)
			other.FailNext(0, 400, `{"errors":["encryption key not found"]}`)
			return other
		},
		"DR secondary": func(b *bench) *vaulttest.Server {
			other := inProcess(b.t)
			other.FailNext(0, 400, `{"errors":["path disabled in replication DR secondary mode"]}`)
			return other
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.hosts["second"] = second(b).RoundTripper()
				b.load(settings{extra: "  addresses: [http://second:8200]\n"})
				keyID := b.KeyIDNow()
				if times, _ := b.logged(nodeUnusable); times != 1 {
					t.Errorf("warned %d times of the second node, want once", times)
				}
				if got := b.node("http://second:8200"); got != 0 {
					t.Errorf("node_usable = %v for the second node", got)
				}
				for range 10 {
					b.vault.FailNext(1, 500, "")
					b.roundTrip()
					b.vault.Seal()
					b.after(time.Minute)
					b.wantStatus(keyID, "")
					b.vault.Unseal()
					b.after(15 * time.Second)
					if err := b.Degraded(); err != nil {
						t.Fatalf("after the blip: %v", err)
					}
					b.roundTrip()
				}
				if times, problem := b.logged("KEK lost; encryption refused"); times != 0 {
					t.Errorf("lost: %s", problem)
				}
			})
		})
	}
}

// TestWrongFirstNode checks that a node which comes first, and is of another Vault with a key of the same name and the
// same token, does not keep the right one from being used.
func TestWrongFirstNode(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		keyID := b.KeyIDNow()
		other := inProcess(b.t)
		other.CreateKey("kek")
		b.hosts["first"] = withToken{other.RoundTripper(), other.KMSToken("kek")}
		b.load(settings{address: "http://first:8200", extra: "  addresses: [http://vault:8200]\n"})
		if got := b.metric("trousseau_generation"); got != 2 {
			times, problem := b.logged(notUsed)
			t.Fatalf("generation = %v; refused %d times: %s", got, times, problem)
		}
		b.wantVault("http://vault:8200")
		b.after(5 * time.Minute)
		b.wantStatus(keyID, "")
		b.roundTrip()
		if got := b.node("http://first:8200"); got != 0 {
			t.Errorf("node_usable = %v for another Vault", got)
		}
	})
}

// TestFirstLoadBesideAWrongNode checks that what another Vault says of the key does not count while the right one does
// not answer.
func TestFirstLoadBesideAWrongNode(t *testing.T) {
	run(t, func(b *bench) {
		other := inProcess(b.t)
		b.hosts["second"] = withToken{other.RoundTripper(), other.KMSToken("kek")}
		remove := b.vault.FailNext(0, 400, "<html>")
		b.load(settings{extra: "  addresses: [http://second:8200]\n"})
		b.after(10 * time.Second)
		ctx, cancel := b.request()
		defer cancel()
		if _, err := b.Encrypt(ctx, []byte("x")); fault.ClassOf(err) != fault.Unavailable {
			t.Errorf("Encrypt: %v, want unavailable", err)
		}
		remove()
		b.after(10 * time.Second)
		b.roundTrip()
	})
}

// TestFirstAddressIsPreferredAgain checks that it gets the requests once it has worked for a minute, and not before.
func TestFirstAddressIsPreferredAgain(t *testing.T) {
	run(t, func(b *bench) {
		second, both := b.twoNodes()
		b.load(both)
		b.vault.Seal()
		b.roundTrip()
		b.after(10 * time.Minute)
		b.vault.Unseal()
		firstServes := func() bool {
			second.ResetCounts()
			b.roundTrip()
			return second.Count(vaulttest.OpEncrypt) == 0
		}
		b.after(30 * time.Second)
		if firstServes() {
			t.Error("preferred although it has worked for 30 seconds only")
		}
		b.after(time.Minute)
		if !firstServes() {
			t.Error("not preferred although it has worked for more than a minute")
		}
	})
}

// TestNodeThatWasDownIsFound checks that a node which was not proven at the adoption is used when it is needed.
func TestNodeThatWasDownIsFound(t *testing.T) {
	run(t, func(b *bench) {
		second, both := b.twoNodes()
		second.Seal()
		b.load(both)
		second.Unseal()
		b.after(6 * time.Second)
		if got := b.node("http://vault-2:8200"); got != 1 {
			t.Errorf("node_usable = %v 6 s after it came up", got)
		}
		b.vault.Seal()
		b.roundTrip()
	})
}

// TestRefusedByOneNodeOnly checks that a request which one node refuses is granted if another grants it.
func TestRefusedByOneNodeOnly(t *testing.T) {
	for name, answer := range map[string]vaulttest.Fault{
		"denied":   {Status: 403, Body: permissionDenied},
		"key lost": {Status: 400, Body: `{"errors":["encryption key not found"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				_, both := b.twoNodes()
				b.load(both)
				keyID := b.KeyIDNow()
				b.vault.Inject(answer)
				b.roundTrip()
				b.after(5 * time.Minute)
				b.wantStatus(keyID, "")
				if err := b.Degraded(); err != nil {
					t.Errorf("degraded: %v", err)
				}
			})
		})
	}
}

// TestShortDeadlineMovesNobodyElse gives one caller too little time.
func TestShortDeadlineMovesNobodyElse(t *testing.T) {
	run(t, func(b *bench) {
		second, both := b.twoNodes()
		b.load(both)
		b.vault.Inject(vaulttest.Fault{Delay: 20 * time.Millisecond})
		second.ResetCounts()
		for range 6 {
			ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Millisecond)
			if _, err := b.Encrypt(ctx, []byte("x")); fault.ClassOf(err) != fault.Timeout {
				t.Errorf("Encrypt: %v, want a timeout", err)
			}
			cancel()
			b.roundTrip()
		}
		if got := second.Total(); got != 0 {
			t.Errorf("%d calls to the second node", got)
		}
	})
}

// TestThrottledRequestStaysAtItsNode checks that a rate limit, which Vault counts on each node, is not bypassed.
func TestThrottledRequestStaysAtItsNode(t *testing.T) {
	run(t, func(b *bench) {
		second, both := b.twoNodes()
		b.load(both)
		second.ResetCounts()
		b.vault.Throttle()
		ctx, cancel := b.request()
		defer cancel()
		if _, err := b.Encrypt(ctx, []byte("x")); fault.ClassOf(err) != fault.Throttled {
			t.Errorf("Encrypt: %v, want throttled", err)
		}
		b.after(2 * probeInterval)
		if got := second.Count(vaulttest.OpEncrypt); got != 0 {
			t.Errorf("%d requests moved to the second node", got)
		}
	})
}

// TestContradictedNodeHasNoSay checks that a node which said "lost" or "denied" while another one worked is not believed
// when that one blips.
func TestContradictedNodeHasNoSay(t *testing.T) {
	for name, answer := range map[string]vaulttest.Fault{
		"denied":   {Status: 403, Body: permissionDenied},
		"key lost": {Status: 400, Body: `{"errors":["encryption key not found"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				second, both := b.twoNodes()
				b.load(both)
				second.Inject(answer)
				b.after(time.Minute)
				b.vault.Seal()
				b.after(time.Minute)
				if class := fault.ClassOf(b.Degraded()); class != fault.Sealed {
					t.Errorf("class = %s, want sealed: %v", class, b.Degraded())
				}
				b.vault.Unseal()
				b.after(15 * time.Second)
				if err := b.Degraded(); err != nil {
					t.Errorf("after the blip: %v", err)
				}
				b.roundTrip()
			})
		})
	}
}

// TestLostNeedsEveryAddress checks that the key counts as lost only when no node has it.
func TestLostNeedsEveryAddress(t *testing.T) {
	run(t, func(b *bench) {
		second, both := b.twoNodes()
		b.load(both)
		keyID := b.KeyIDNow()
		gone := vaulttest.Fault{Status: 400, Body: `{"errors":["encryption key not found"]}`}
		b.vault.Inject(gone)
		b.after(5 * time.Minute)
		b.wantStatus(keyID, "")
		second.Inject(gone)
		b.after(2 * probeInterval)
		if got := b.state(); got != "lost" {
			t.Errorf("the state is %s, want lost", got)
		}
	})
}

// TestManyFailuresMoveOnce checks that many concurrent failures at one node do not skip its healthy neighbour.
func TestManyFailuresMoveOnce(t *testing.T) {
	run(t, func(b *bench) {
		b.load(b.severalNodes(3, true))
		b.hosts["vault"] = failing{fmt.Errorf("connection refused")}
		b.hosts["vault-3"] = failing{fmt.Errorf("not to be asked")}
		outcome := make(chan error)
		for range 50 {
			go func() {
				ctx, cancel := b.request()
				defer cancel()
				_, err := b.Encrypt(ctx, []byte("x"))
				outcome <- err
			}()
		}
		for range 50 {
			if err := <-outcome; err != nil {
				t.Errorf("Encrypt: %v", err)
			}
		}
		if got := b.node("http://vault-3:8200"); got != 1 {
			t.Error("the third node was asked")
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// crowded runs a test with room for few calls, so that requests wait.
func crowded(t *testing.T, calls int, test func(*bench)) {
	run(t, test, func(o *live.Options) { o.MaxVaultRequests = calls })
}

// crowd is a number of requests at the same time.
type crowd struct{ outcomes chan error }

// wrapped encrypts a seed.
func (b *bench) wrapped() seed.Wrapped {
	b.t.Helper()
	ctx, cancel := b.request()
	defer cancel()
	wrapped, err := b.Encrypt(ctx, []byte("seed"))
	if err != nil {
		b.t.Fatal(err)
	}
	return wrapped
}

// mixed begins n requests, alternating Encrypt and Decrypt.
func (b *bench) mixed(n int, wrapped seed.Wrapped) *crowd {
	return b.begin(n, func(i int) error {
		ctx, cancel := b.request()
		defer cancel()
		if i%2 == 0 {
			_, err := b.Encrypt(ctx, []byte("seed"))
			return err
		}
		plaintext, err := b.Decrypt(ctx, wrapped)
		if err == nil && string(plaintext) != "seed" {
			err = fmt.Errorf("decrypted %q", plaintext)
		}
		return err
	})
}

// encrypts begins n Encrypts.
func (b *bench) encrypts(n int) *crowd {
	return b.begin(n, func(int) error {
		ctx, cancel := b.request()
		defer cancel()
		_, err := b.Encrypt(ctx, []byte("seed"))
		return err
	})
}

// begin begins n requests, and returns when they are under way or wait.
func (b *bench) begin(n int, request func(i int) error) *crowd {
	c := &crowd{make(chan error, n)}
	for i := range n {
		go func() { c.outcomes <- request(i) }()
	}
	synctest.Wait()
	return c
}

// classes waits for the requests.
func (c *crowd) classes() map[fault.Class]int {
	got := make(map[fault.Class]int)
	for range cap(c.outcomes) {
		got[fault.ClassOf(<-c.outcomes)]++
	}
	return got
}

// wantServed checks that all were served.
func (c *crowd) wantServed(t *testing.T) {
	t.Helper()
	for range cap(c.outcomes) {
		if err := <-c.outcomes; err != nil {
			t.Errorf("a request: %v", err)
		}
	}
}

// isBatch matches the calls with batch_input.
func isBatch(_ string, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	return err == nil && strings.Contains(string(body), `"batch_input"`)
}

// batchesDenied is a policy that allows only what a single call needs.
var batchesDenied = vaulttest.Fault{Match: isBatch, Status: 403, Body: `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`}

// TestConcurrencyIsBounded checks that concurrent calls are limited, and that requests
// which wait for a Vault that hangs get that reason.
func TestConcurrencyIsBounded(t *testing.T) {
	const calls, requests = 4, 20
	crowded(t, calls, func(b *bench) {
		b.load(settings{})
		keyID := b.roundTrip()
		var tooMany atomic.Bool
		release := b.vault.Inject(vaulttest.Fault{Hang: true, Match: func(op string, _ *http.Request) bool {
			// The prober makes calls too.
			if b.vault.InFlight() > calls+1 {
				tooMany.Store(true)
			}
			return op == vaulttest.OpEncrypt
		}})
		c := b.encrypts(requests)
		if underWay, waiting := b.metric("trousseau_vault_requests_in_flight"), b.metric("trousseau_vault_requests_waiting"); underWay != calls || waiting != requests-calls {
			t.Errorf("metrics: %v calls and %v requests, want %d and %d", underWay, waiting, calls, requests-calls)
		}
		b.wantStatus(keyID, "")
		if got := c.classes(); got[fault.Timeout] != requests {
			t.Errorf("classes = %v, want only %s", got, fault.Timeout)
		}
		if tooMany.Load() {
			t.Errorf("more than %d calls at the same time", calls)
		}
		release()
		b.encrypts(requests).wantServed(t)
		synctest.Wait()
		if underWay, waiting := b.metric("trousseau_vault_requests_in_flight"), b.metric("trousseau_vault_requests_waiting"); underWay != 0 || waiting != 0 {
			t.Errorf("metrics afterwards: %v calls and %v requests", underWay, waiting)
		}
	})
}

// TestWaitingUsesAllTheTime has a Vault that needs nearly all of the requests' time, call
// by call: one that waits is not cut like one that hangs, and not tried again.
func TestWaitingUsesAllTheTime(t *testing.T) {
	const took, fit = 110 * time.Millisecond, 18 * 128 // 128 single calls at a time
	for _, requests := range []int{fit, 2 * fit} {
		t.Run(fmt.Sprint(requests), func(t *testing.T) {
			crowded(t, 1, func(b *bench) {
				b.load(settings{})
				b.withoutBatches()
				b.vault.Inject(vaulttest.Fault{Delay: took, Match: vaulttest.Ops(vaulttest.OpEncrypt)})
				// When their time is over, one is under way and others may be about to begin.
				got := b.encrypts(requests).classes()
				if got[""] != fit || got[fault.Overloaded]+got[fault.Timeout] != requests-fit {
					t.Errorf("classes = %v, want %d served and the rest %s or %s", got, fit, fault.Overloaded, fault.Timeout)
				}
				b.wantMetrics("", "trousseau_vault_retries_total")
			})
		})
	}
}

// withoutBatches makes Vault take no batches, and lets the bench find that out.
func (b *bench) withoutBatches() {
	b.t.Helper()
	wrapped := b.wrapped()
	b.vault.Inject(batchesDenied)
	release := b.vault.Hang()
	c := b.mixed(40, wrapped)
	release()
	c.wantServed(b.t)
}

const noBatches = "Vault takes no batches; requests go one by one"

// batchesRefused returns the metric for the bench's Vault.
func (b *bench) batchesRefused() float64 {
	b.t.Helper()
	return b.ofVault("trousseau_vault_batches_refused", "http://vault:8200")
}

// TestBatchesAreRefused checks that a policy without batch_input is found out once in each
// configuration, and fails nobody.
func TestBatchesAreRefused(t *testing.T) {
	crowded(t, 2, func(b *bench) {
		var tried atomic.Bool
		for configuration := 1; configuration <= 2; configuration++ {
			b.load(settings{})
			if got := b.batchesRefused(); got != 0 {
				t.Errorf("batches_refused = %v before the first batch", got)
			}
			b.vault.Inject(vaulttest.Fault{Match: func(op string, r *http.Request) bool {
				if isBatch(op, r) {
					tried.Store(true)
				}
				return false
			}})
			b.withoutBatches()
			if times, problem := b.logged(noBatches); times != configuration || !strings.Contains(problem, "permission denied (403)") {
				t.Errorf("configuration %d: logged %d times: %s", configuration, times, problem)
			}
			if got := b.batchesRefused(); got != 1 {
				t.Errorf("batches_refused = %v, want 1", got)
			}
			tried.Store(false)
			wrapped, release := b.wrapped(), b.vault.Hang()
			c := b.mixed(40, wrapped)
			release()
			c.wantServed(t)
			if tried.Load() {
				t.Error("a batch is tried again")
			}
			b.vault.ClearFaults()
		}
		if err := b.Degraded(); err != nil {
			t.Errorf("degraded: %v", err)
		}
	})
}

// TestBadItemFailsItsCallerAlone has one bad ciphertext among requests that wait.
func TestBadItemFailsItsCallerAlone(t *testing.T) {
	crowded(t, 1, func(b *bench) {
		b.load(settings{})
		wrapped := b.wrapped()
		release := b.vault.Hang()
		good := b.mixed(20, wrapped)
		bad := b.begin(1, func(int) error {
			ctx, cancel := b.request()
			defer cancel()
			_, err := b.Decrypt(ctx, seed.Wrapped{KeyID: wrapped.KeyID, Ciphertext: []byte("vault:v1:AAAA")})
			return err
		})
		good2 := b.mixed(20, wrapped)
		b.vault.ResetCounts()
		release()
		if got := bad.classes(); got[fault.Invalid] != 1 {
			t.Errorf("classes = %v, want %s", got, fault.Invalid)
		}
		good.wantServed(t)
		good2.wantServed(t)
		if got := b.vault.Total(); got != 2 {
			t.Errorf("%d calls, want one for the Encrypts and one for the Decrypts", got)
		}
	})
}

// TestWholeBatchIsRetried has faults that pass. Requests are served, and Vault gets far
// fewer calls than there are requests.
func TestWholeBatchIsRetried(t *testing.T) {
	for name, f := range map[string]vaulttest.Fault{
		"throttled": {Status: 429},
		"error":     {Status: 500},
		"sealed":    {Status: 503, Body: `{"errors":["Vault is sealed"]}`},
		"reset":     {Cut: vaulttest.CutReset},
		"denied":    {Status: 403, Body: `{"errors":["permission denied"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			crowded(t, 2, func(b *bench) {
				b.load(settings{})
				wrapped := b.wrapped()
				release := b.vault.Hang()
				c := b.mixed(100, wrapped)
				f.Match, f.Times = isBatch, 2 // that of the Encrypts, that of the Decrypts
				b.vault.Inject(f)
				b.vault.Inject(vaulttest.Fault{Delay: 10 * time.Millisecond})
				b.vault.ResetCounts()
				release()
				c.wantServed(t)
				if got := b.vault.Count(vaulttest.OpEncrypt) + b.vault.Count(vaulttest.OpDecrypt); got > 30 {
					t.Errorf("%d calls for 100 requests", got)
				}
				if times, _ := b.logged(noBatches); times != 0 {
					t.Error("taken for a Vault without batches")
				}
			})
		})
	}
}

// TestDeniedBatchWaitsForTheNextToken revokes the token of requests that wait. They are
// served with the next one, and do not ask in vain one by one.
func TestDeniedBatchWaitsForTheNextToken(t *testing.T) {
	crowded(t, 2, func(b *bench) {
		old := b.load(settings{})
		wrapped := b.wrapped()
		release := b.vault.Hang()
		c := b.mixed(100, wrapped)
		b.vault.Revoke(old)
		b.vault.ResetCounts()
		release()
		b.after(100 * time.Millisecond)
		// Two batches, and what tells that the token is denied and not the batch.
		if got := b.vault.Count(vaulttest.OpEncrypt) + b.vault.Count(vaulttest.OpDecrypt); got > 10 {
			t.Errorf("%d calls with the old token", got)
		}
		b.load(settings{})
		c.wantServed(t)
		if times, _ := b.logged(noBatches); times != 0 {
			t.Error("taken for a Vault without batches")
		}
	})
}

// TestBatchFollowsTheNode has a node that fails while requests wait for it.
func TestBatchFollowsTheNode(t *testing.T) {
	for name, fault := range nodeFaults {
		t.Run(name, func(t *testing.T) {
			crowded(t, 2, func(b *bench) {
				second, both := b.twoNodes()
				b.load(both)
				wrapped := b.wrapped()
				release := b.vault.Hang()
				c := b.mixed(100, wrapped)
				fault(b)
				second.Inject(vaulttest.Fault{Delay: 10 * time.Millisecond})
				second.ResetCounts()
				release()
				c.wantServed(t)
				if got := b.node("http://vault:8200"); got != 0 {
					t.Errorf("node_usable = %v for the first node", got)
				}
				if got := second.Count(vaulttest.OpEncrypt) + second.Count(vaulttest.OpDecrypt); got > 50 {
					t.Errorf("%d calls of the second node for 100 requests", got)
				}
			})
		})
	}
}

// TestThrottledBatchStaysAtItsNode checks that a rate limit is not bypassed by a batch.
func TestThrottledBatchStaysAtItsNode(t *testing.T) {
	crowded(t, 2, func(b *bench) {
		second, both := b.twoNodes()
		b.load(both)
		wrapped := b.wrapped()
		release := b.vault.Hang()
		c := b.mixed(100, wrapped)
		remove := b.vault.Throttle()
		second.ResetCounts()
		release()
		b.after(requestTimeout / 4)
		remove()
		c.wantServed(t)
		if got := second.Count(vaulttest.OpEncrypt) + second.Count(vaulttest.OpDecrypt); got != 0 {
			t.Errorf("%d calls of the second node", got)
		}
	})
}

// TestReloadWhileRequestsWait checks that requests which wait with the old token are
// served with it.
func TestReloadWhileRequestsWait(t *testing.T) {
	crowded(t, 1, func(b *bench) {
		b.load(settings{})
		wrapped := b.wrapped()
		requests := vaulttest.Ops(vaulttest.OpEncrypt, vaulttest.OpDecrypt)
		hanging := vaulttest.Fault{Hang: true, Times: 1, Match: requests}
		release := b.vault.Inject(hanging)
		c := b.mixed(40, wrapped)
		b.load(settings{})
		if got := b.metric("trousseau_generation"); got != 2 {
			t.Fatalf("generation = %v", got)
		}
		later := b.mixed(40, wrapped)
		b.vault.ResetCounts()
		release()
		c.wantServed(t)
		later.wantServed(t)
		// Each configuration has lines of its own.
		if got := b.vault.Total(); got != 4 {
			t.Errorf("%d calls, want 4", got)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

func TestTransientFailureIsNotTheCallers(t *testing.T) {
	for name, fault := range map[string]vaulttest.Fault{
		"connection reset":      {Cut: vaulttest.CutReset},
		"answer breaks off":     {Cut: vaulttest.CutBody},
		"throttled":             {Status: 429},
		"internal error":        {Status: 500},
		"bad gateway":           {Status: 502},
		"sealed":                {Status: 503},
		"node hangs":            {Hang: true},
		"node lags":             {Status: 400, Body: `{"errors":["invalid ciphertext: version is too new"]}`},
		"something not Vault's": {Status: 200, Body: "<html>"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.load(settings{})
				ctx, cancel := b.request()
				defer cancel()
				wrapped, err := b.Encrypt(ctx, []byte("seed"))
				if err != nil {
					t.Fatal(err)
				}
				fault.Times = 1
				fault.Match = vaulttest.Ops(vaulttest.OpDecrypt)
				b.vault.Inject(fault)
				if plaintext, err := b.Decrypt(ctx, wrapped); err != nil || string(plaintext) != "seed" {
					t.Errorf("Decrypt = %q, %v", plaintext, err)
				}
				if b.Degraded() != nil {
					t.Errorf("one failure hidden by a retry: degraded, %v", b.Degraded())
				}
			})
		})
	}
}

// TestRequestUsesItsTime makes Vault available shortly before the deadline, as after
// an election.
func TestRequestUsesItsTime(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.vault.Seal()
		outcome := make(chan error, 1)
		go func() {
			ctx, cancel := b.request()
			defer cancel()
			_, err := b.Encrypt(ctx, []byte("seed"))
			outcome <- err
		}()
		b.after(requestTimeout - 250*time.Millisecond)
		b.vault.Unseal()
		if err := <-outcome; err != nil {
			t.Errorf("Encrypt: %v", err)
		}
	})
}

func TestFinalFailureIsNotRepeated(t *testing.T) {
	for name, tt := range map[string]struct {
		fault vaulttest.Fault
		class fault.Class
	}{
		"not this key's":  {vaulttest.Fault{Status: 400, Body: `{"errors":["cipher: message authentication failed"]}`}, fault.Invalid},
		"version retired": {vaulttest.Fault{Status: 400, Body: `{"errors":["ciphertext or signature version is disallowed by policy (too old)"]}`}, fault.VersionTooOld},
		"key is gone":     {vaulttest.Fault{Status: 400, Body: `{"errors":["encryption key not found"]}`}, fault.KeyLost},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.load(settings{})
				tt.fault.Match = vaulttest.Ops(vaulttest.OpDecrypt)
				b.vault.Inject(tt.fault)
				b.vault.ResetCounts()
				ctx, cancel := b.request()
				defer cancel()
				_, err := b.Decrypt(ctx, seed.Wrapped{KeyID: b.Current().KeyID, Ciphertext: []byte("vault:v1:AAAA")})
				if got := fault.ClassOf(err); got != tt.class {
					t.Errorf("class = %q (%v), want %q", got, err, tt.class)
				}
				if got := b.vault.Total(); got != 1 {
					t.Errorf("%d calls, want 1", got)
				}
			})
		})
	}
}

// TestErrorRate makes nearly a third of all answers errors; almost no caller may
// notice.
func TestErrorRate(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.vault.FailRate(0.3, 7)
		const requests = 3000
		failed := 0
		for range requests {
			ctx, cancel := b.request()
			if _, err := b.Encrypt(ctx, []byte("seed")); err != nil {
				failed++
			}
			cancel()
		}
		if failed > requests/1000 {
			t.Errorf("%d of %d requests failed", failed, requests)
		}
	})
}

// TestRetriesAreBounded checks that while Vault is down, concurrent callers cost it
// at most two retries each beyond the saved budget, and get the reason.
func TestRetriesAreBounded(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.vault.Inject(vaulttest.Fault{Status: 503, Body: `{"errors":["Vault is sealed"]}`, Match: vaulttest.Ops(vaulttest.OpEncrypt)})
		b.vault.ResetCounts()
		const requests, saved = 500, 100
		var all sync.WaitGroup
		for range requests {
			all.Go(func() {
				ctx, cancel := b.request()
				defer cancel()
				_, err := b.Encrypt(ctx, []byte("seed"))
				if fault.ClassOf(err) != fault.Sealed || !strings.Contains(err.Error(), "503") {
					t.Errorf("error = %v, want the last answer's", err)
				}
			})
		}
		all.Wait()
		synctest.Wait()
		// The prober encrypts too, once per backoff interval.
		if got := b.vault.Count(vaulttest.OpEncrypt); got > 3*requests+saved+10 {
			t.Errorf("%d attempts for %d requests", got, requests)
		}
	})
}

// TestSpentBudgetDelaysAndDoesNotFail has more concurrent callers than the retry
// budget, and Vault recovers before their deadline.
func TestSpentBudgetDelaysAndDoesNotFail(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.after(2 * time.Second)
		b.vault.Seal()
		const requests = 500
		var failed atomic.Int32
		var all sync.WaitGroup
		for range requests {
			all.Go(func() {
				ctx, cancel := b.request()
				defer cancel()
				if _, err := b.Encrypt(ctx, []byte("seed")); err != nil {
					failed.Add(1)
				}
			})
		}
		b.after(requestTimeout / 8)
		b.vault.Unseal()
		all.Wait()
		if got := failed.Load(); got != 0 {
			t.Errorf("%d of %d requests failed", got, requests)
		}
	})
}

// TestRetryFollowsANewAddress changes the configuration from a Vault that does not
// answer to another one; running requests follow.
func TestRetryFollowsANewAddress(t *testing.T) {
	run(t, func(b *bench) {
		b.hosts["next"] = b.vault.RoundTripper()
		b.load(settings{})
		gone := inProcess(b.t)
		gone.Seal()
		b.hosts["vault"] = gone.RoundTripper()
		outcome := make(chan error, 1)
		go func() {
			ctx, cancel := b.request()
			defer cancel()
			_, err := b.Encrypt(ctx, []byte("seed"))
			outcome <- err
		}()
		b.after(100 * time.Millisecond)
		b.load(settings{address: "http://next:8200"})
		if err := <-outcome; err != nil {
			t.Errorf("Encrypt: %v", err)
		}
	})
}

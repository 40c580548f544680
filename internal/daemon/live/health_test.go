// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// TestHealth is the table of DESIGN's rules for outages and lost keys: an event, the
// time since then, and the resulting Status, Encrypt, /readyz and metric.
func TestHealth(t *testing.T) {
	const noGrace = -1
	tests := []struct {
		name    string
		event   func(*bench)
		mend    func(*bench)
		grace   time.Duration // 0 means the default, noGrace none
		wait    time.Duration
		status  string // "" for ok, otherwise a part of the error
		failure string // the class of Encrypt's error
	}{
		{name: "all is well", event: func(*bench) {}, wait: time.Hour},

		{name: "stopped, within the grace", event: stop, mend: start, wait: grace - 2*probeInterval, failure: "unavailable"},
		{name: "stopped, after the grace", event: stop, mend: start, wait: grace + time.Minute, status: "longer ago than the grace of 5m0s", failure: "unavailable"},
		{name: "sealed, within the grace", event: seal, mend: unseal, wait: time.Minute, failure: "sealed"},
		{name: "sealed, after the grace", event: seal, mend: unseal, wait: grace + time.Minute, status: "vault is sealed", failure: "sealed"},
		{name: "hanging, within the grace", event: hang, mend: release, wait: time.Minute, failure: "timeout"},
		{name: "hanging, after the grace", event: hang, mend: release, wait: grace + time.Minute, status: "vault did not answer in time", failure: "timeout"},
		{name: "throttled, within the grace", event: throttle, mend: release, wait: time.Minute, failure: "throttled"},
		{name: "throttled, after the grace", event: throttle, mend: release, wait: grace + time.Minute, status: "rate limit", failure: "throttled"},
		{name: "denied, within the grace", event: deny, mend: reload, wait: time.Minute, failure: "denied"},
		{name: "denied, after the grace", event: deny, mend: reload, wait: grace + time.Minute, status: "permission denied", failure: "denied"},
		{name: "stopped, no grace", event: stop, mend: start, grace: noGrace, wait: 2 * probeInterval, status: "longer ago than the grace of 0s", failure: "unavailable"},

		{name: "key deleted", event: func(b *bench) { b.key.Delete() }, wait: 2 * probeInterval, status: "no longer decrypts", failure: "key_lost"},
		{
			name: "key recreated",
			event: func(b *bench) {
				time.Sleep(time.Second) // creation times are in whole seconds
				b.key.Delete()
				b.key = b.vault.CreateKey("kek")
			},
			wait: 2 * probeInterval, status: "no longer decrypts", failure: "key_lost",
		},
		{
			name: "min_decryption_version above the version in use",
			event: func(b *bench) {
				b.key.Rotate()
				b.key.SetMinDecryptionVersion(2)
			},
			mend: func(b *bench) { b.key.SetMinDecryptionVersion(1) },
			wait: 2 * probeInterval, status: "no longer decrypts", failure: "key_lost",
		},
		// A missing route says nothing about the key: it may be another node's, or a proxy's.
		{name: "engine unmounted, within the grace", event: func(b *bench) { b.vault.Unmount("", "transit") }, wait: time.Minute, failure: "unavailable"},
		{name: "engine unmounted, after the grace", event: func(b *bench) { b.vault.Unmount("", "transit") }, wait: grace + time.Minute, status: "nothing is mounted at this path", failure: "unavailable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			adjust := func(o *live.Options) {
				switch tt.grace {
				case 0:
				case noGrace:
					o.OutageGrace = 0
				default:
					o.OutageGrace = tt.grace
				}
			}
			run(t, func(b *bench) {
				b.load(settings{})
				b.after(probeInterval)
				keyID := b.roundTrip()
				tt.event(b)
				b.after(tt.wait)

				b.wantStatus(keyID, tt.status)
				ctx, cancel := b.request()
				defer cancel()
				_, err := b.Encrypt(ctx, []byte("seed"))
				if got := string(fault.ClassOf(err)); got != tt.failure {
					t.Errorf("Encrypt's class = %q (%v), want %q", got, err, tt.failure)
				}
				troubled := tt.failure != ""
				if got := b.Degraded() != nil; got != troubled {
					t.Errorf("Degraded = %v, want trouble: %v", b.Degraded(), troubled)
				}
				if got := b.metric("trousseau_degraded") == 1; got != troubled {
					t.Errorf("the metric says degraded: %v, want %v", got, troubled)
				}
				if tt.mend == nil {
					return
				}
				tt.mend(b)
				b.after(15 * time.Second)
				b.wantStatus(b.KeyIDNow(), "")
				b.roundTrip()
				if b.Degraded() != nil || b.metric("trousseau_degraded") != 0 {
					t.Errorf("15 s after the end of it: %v", b.Degraded())
				}
			}, adjust)
		})
	}
}

// KeyIDNow returns the current generation's key_id.
func (b *bench) KeyIDNow() string { return b.Current().KeyID }

func stop(b *bench)     { b.vault.Stop() }
func seal(b *bench)     { b.vault.Seal() }
func unseal(b *bench)   { b.vault.Unseal() }
func hang(b *bench)     { b.vault.Hang() }
func throttle(b *bench) { b.vault.Throttle() }
func release(b *bench)  { b.vault.ClearFaults() }
func reload(b *bench)   { b.load(settings{}) }

func start(b *bench) {
	if err := b.vault.Start(); err != nil {
		b.t.Fatal(err)
	}
}

func deny(b *bench) { b.vault.Revoke(b.token) }

// TestHealthTransitions follows every arrow of the state diagram in
// docs/architecture.md: a state, an event, the next state.
func TestHealthTransitions(t *testing.T) {
	var wrapped seed.Wrapped
	ok := func(b *bench) {
		b.load(settings{})
		ctx, cancel := b.request()
		defer cancel()
		var err error
		if wrapped, err = b.Encrypt(ctx, []byte("seed")); err != nil {
			b.t.Fatal(err)
		}
	}
	into := map[string]func(*bench){
		"none":        func(b *bench) { b.after(probeInterval) },
		"ok":          ok,
		"degraded":    func(b *bench) { ok(b); seal(b); b.after(time.Minute) },
		"unavailable": func(b *bench) { ok(b); seal(b); b.after(grace + time.Minute) },
		"lost":        func(b *bench) { ok(b); b.raiseMinimum(); b.after(2 * probeInterval) },
	}
	events := map[string]func(*bench){
		"proven": func(b *bench) {
			unseal(b)
			b.key.SetMinDecryptionVersion(1)
			if b.Current() == nil {
				b.load(settings{})
			}
			b.after(15 * time.Second)
		},
		"probe failed": func(b *bench) { seal(b); b.after(time.Minute) },
		"grace over":   func(b *bench) { b.after(grace + time.Minute) },
		"key lost":     func(b *bench) { unseal(b); b.raiseMinimum(); b.after(2 * probeInterval) },
		"probes end": func(b *bench) {
			b.log.blocked.Store(true)
			b.key.Rotate() // is logged
			b.after(grace + 4*probeInterval)
		},
		"seed decrypted": func(b *bench) {
			unseal(b) // which the prober has not noticed yet
			ctx, cancel := b.request()
			defer cancel()
			_, _ = b.Decrypt(ctx, wrapped)
		},
	}
	drawn := drawnTransitions(t)
	for _, tt := range []struct{ from, event, to string }{
		{"none", "proven", "ok"},
		{"none", "probe failed", "none"},
		{"none", "grace over", "none"},
		{"ok", "proven", "ok"},
		{"ok", "grace over", "ok"},
		{"ok", "probe failed", "degraded"},
		{"ok", "key lost", "lost"},
		{"degraded", "proven", "ok"},
		{"degraded", "probe failed", "degraded"},
		{"degraded", "grace over", "unavailable"},
		{"degraded", "key lost", "lost"},
		{"ok", "probes end", "unavailable"},
		{"degraded", "seed decrypted", "degraded"},
		{"unavailable", "seed decrypted", "degraded"},
		{"lost", "seed decrypted", "lost"},
		{"unavailable", "proven", "ok"},
		{"unavailable", "probe failed", "unavailable"},
		{"unavailable", "key lost", "lost"},
		{"lost", "proven", "ok"},
		{"lost", "probe failed", "lost"},
		{"lost", "grace over", "lost"},
	} {
		if tt.from != tt.to {
			arrow := fmt.Sprintf("%s --> %s: %s", tt.from, tt.to, tt.event)
			if !drawn[arrow] {
				t.Errorf("the diagram lacks %s", arrow)
			}
			delete(drawn, arrow)
		}
		t.Run(tt.from+", "+tt.event, func(t *testing.T) {
			run(t, func(b *bench) {
				into[tt.from](b)
				if got := b.state(); got != tt.from {
					t.Fatalf("the state before is %s, want %s", got, tt.from)
				}
				events[tt.event](b)
				if got := b.state(); got != tt.to {
					t.Errorf("the state is %s, want %s (%v)", got, tt.to, b.Degraded())
				}
			})
		})
	}
	for arrow := range drawn {
		t.Errorf("the diagram has %s, which no test covers", arrow)
	}
}

// drawnTransitions returns the arrows of the state diagram in docs/architecture.md,
// without the initial one.
func drawnTransitions(t *testing.T) map[string]bool {
	t.Helper()
	page, err := os.ReadFile("../../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, diagram, found := strings.Cut(string(page), "```mermaid\nstateDiagram-v2\n    [*] --> none\n")
	diagram, _, closed := strings.Cut(diagram, "```\n")
	if !found || !closed {
		t.Fatal("docs/architecture.md has no state diagram")
	}
	drawn := make(map[string]bool)
	for line := range strings.Lines(diagram) {
		drawn[strings.TrimSpace(line)] = true
	}
	return drawn
}

// state returns the KEK's health as an outsider sees it.
func (b *bench) state() string {
	_, err := b.Status()
	switch {
	case b.Current() == nil:
		return "none"
	case err == nil && b.Degraded() == nil:
		return "ok"
	case err == nil:
		return "degraded"
	case fault.ClassOf(err) == fault.KeyLost:
		return "lost"
	}
	return "unavailable"
}

// raiseMinimum makes ciphertexts of version 1 unreadable.
func (b *bench) raiseMinimum() {
	b.key.Rotate()
	b.key.SetMinDecryptionVersion(2)
}

// TestTroubleIsSeenAtOnce checks that a failing request triggers a probe, without
// waiting for the interval.
func TestTroubleIsSeenAtOnce(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.after(2 * time.Second)
		b.vault.Stop()
		ctx, cancel := b.request()
		defer cancel()
		if _, err := b.Encrypt(ctx, []byte("seed")); err == nil {
			t.Fatal("Encrypt worked without Vault")
		}
		b.after(0)
		if b.Degraded() == nil || b.metric("trousseau_degraded") != 1 {
			t.Error("not degraded")
		}
	})
}

// TestRequestsDoNotDriveTheProber checks that under any load an outage costs Vault
// at most the backoff's probes and three attempts for each request.
func TestRequestsDoNotDriveTheProber(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.after(2 * time.Second)
		b.vault.Inject(vaulttest.Fault{Status: 500})
		b.vault.ResetCounts()
		const requests, saved = 1000, 100
		began := time.Now()
		for range requests {
			ctx, cancel := b.request()
			_, _ = b.Encrypt(ctx, []byte("seed"))
			cancel()
			b.after(10 * time.Millisecond)
		}
		// Each probe is one call, with an interval from 0.5 s to 5 s.
		probes := int(time.Since(began)/time.Second) + 10
		if got := b.vault.Total(); got > 3*requests+saved+probes {
			t.Errorf("%d calls for %d requests and at most %d probes", got, requests, probes)
		}
	})
}

// TestProofDoesNotWaitForTheToken checks that a hanging token look-up neither delays
// the proof nor makes the KEK unhealthy.
func TestProofDoesNotWaitForTheToken(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		first := b.metric("trousseau_last_proof_timestamp_seconds")
		b.vault.Inject(vaulttest.Fault{Hang: true, Match: vaulttest.Ops(vaulttest.OpLookupSelf)})
		for b.metric("trousseau_last_proof_timestamp_seconds") == first {
			b.after(100 * time.Millisecond)
		}
		if b.vault.InFlight() != 1 {
			t.Error("the proof was recorded after the look-up of the token")
		}
		b.after(requestTimeout)
		if b.Degraded() != nil {
			t.Errorf("degraded: %v", b.Degraded())
		}
	})
}

func TestStatusMakesNoVaultCall(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.vault.ResetCounts()
		for range 1000 {
			b.wantStatus(b.KeyIDNow(), "")
		}
		if got := b.vault.Total(); got != 0 {
			t.Errorf("%d Vault calls", got)
		}
	})
}

func TestRotation(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		ctx, cancel := b.request()
		defer cancel()
		first := b.roundTrip()
		old, err := b.Encrypt(ctx, []byte("old"))
		if err != nil {
			t.Fatal(err)
		}
		b.after(time.Second)
		b.key.Rotate()
		// Before the prober has run, Status and Encrypt do not change.
		b.wantStatus(first, "")
		if got := b.roundTrip(); got != first {
			t.Errorf("Encrypt's key_id = %q while Status says %q", got, first)
		}
		b.after(2 * probeInterval)
		second := fmt.Sprintf("transit/kek/v2@%d", b.key.Created(2).Unix())
		b.wantStatus(second, "")
		if got := b.roundTrip(); got != second {
			t.Errorf("Encrypt's key_id = %q, want %q", got, second)
		}
		ctx, cancel = b.request()
		defer cancel()
		if plaintext, err := b.Decrypt(ctx, old); err != nil || string(plaintext) != "old" {
			t.Errorf("data encrypted with version 1: %q, %v", plaintext, err)
		}
		if times, _ := b.logged("key version adopted"); times != 1 {
			t.Errorf("logged %d times", times)
		}
	})
}

func TestVersionThatCannotBeProvenIsNotAdopted(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		first := b.KeyIDNow()
		b.after(time.Second)
		b.key.Rotate()
		remove := b.vault.Inject(refuse(vaulttest.OpDecrypt, "vault:v2:", 500))
		b.after(3 * probeInterval)
		b.wantStatus(first, "")
		if err := b.Degraded(); err != nil {
			t.Errorf("degraded although version 1 works: %v", err)
		}
		b.roundTrip()
		remove()
		b.after(2 * probeInterval)
		if got := b.Current().ID.Version; got != 2 {
			t.Errorf("version = %d, want 2", got)
		}
	})
}

// TestVersionNeverGoesBackwards uses a standby that lags behind and answers as
// before the rotation.
func TestVersionNeverGoesBackwards(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.key.Rotate()
		b.after(2 * probeInterval)
		second := b.KeyIDNow()
		b.vault.SetLag(1)
		b.after(45 * time.Second)
		b.wantStatus(second, "")
		b.load(settings{})
		b.wantStatus(second, "")
		if times, problem := b.logged(notUsed); times != 1 {
			t.Errorf("a candidate that lags behind: logged %d times: %s", times, problem)
		}
		b.vault.SetLag(0)
		b.after(time.Minute)
		b.wantStatus(second, "")
		if got := b.metric("trousseau_config_last_reload_successful"); got != 1 {
			t.Error("the candidate was not tried again")
		}
	})
}

// TestRestoredFromAnOlderBackup uses a Vault without the current version. At first
// it looks like a node that lags behind.
func TestRestoredFromAnOlderBackup(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.key.Rotate()
		b.after(2 * probeInterval)
		keyID := b.roundTrip()
		b.vault.SetLag(1)
		b.after(45 * time.Second)
		b.wantStatus(keyID, "")
		if b.Degraded() == nil {
			t.Error("not degraded although Vault does not know the version in use")
		}
		b.after(time.Minute)
		b.wantStatus("", "no Vault node has known version 2 of key transit/kek for more than 1m0s")
		b.wantStatus("", "was Vault restored from a backup older than that version?")
		ctx, cancel := b.request()
		defer cancel()
		if _, err := b.Encrypt(ctx, []byte("seed")); fault.ClassOf(err) != fault.KeyLost {
			t.Errorf("Encrypt: %v, want a lost key", err)
		}
		b.vault.SetLag(0)
		b.after(15 * time.Second)
		b.wantStatus(keyID, "")
		b.roundTrip()
	})
}

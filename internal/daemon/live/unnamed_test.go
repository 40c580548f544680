// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

const (
	accepting = "  acceptBareKeyIDs: true\n"
	// kmsV1 is the key_id that package kms gives to what KMS v1 stored.
	kmsV1 = ""
)

// wrapUnder wraps a seed with the newest version of a key, as a plugin does that
// gives it this key_id. Then the bench is as at its start.
func (b *bench) wrapUnder(key, keyID string) seed.Wrapped {
	b.t.Helper()
	b.load(settings{keys: []string{key}})
	ctx, cancel := b.request()
	defer cancel()
	w, err := b.Encrypt(ctx, []byte("seed"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.restart()
	return seed.Wrapped{KeyID: keyID, Ciphertext: w.Ciphertext}
}

// TestBareKeyIDs decrypts seeds whose key_id names no key.
func TestBareKeyIDs(t *testing.T) {
	marked := map[string][]byte{mark: []byte("v1")}
	tests := []struct {
		name, extra string
		seed        seed.Wrapped
		wantProblem string // "" if it is decrypted
	}{
		{"not accepted", "", seed.Wrapped{KeyID: "1"}, "set acceptBareKeyIDs"},
		{"accepted", accepting, seed.Wrapped{KeyID: "1"}, ""},
		{"of another version, because the plugin read it afterwards", accepting, seed.Wrapped{KeyID: "2"}, ""},
		{"a time", accepting, seed.Wrapped{KeyID: "1790000000"}, ""},
		{"too long for a time", accepting, seed.Wrapped{KeyID: strings.Repeat("1", 20)}, "key_id is not of the form"},
		{"not only a number", accepting, seed.Wrapped{KeyID: "v1"}, "key_id is not of the form"},
		{"with a second line", accepting, seed.Wrapped{KeyID: "1\n"}, "key_id is not of the form"},
		{"with annotations", accepting, seed.Wrapped{KeyID: "1", Annotations: marked}, "key_id is not of the form"},
		{"not transit's", accepting, seed.Wrapped{KeyID: "1", Ciphertext: []byte("AAAA")}, "not a transit ciphertext"},
		{"KMS v1", "", seed.Wrapped{KeyID: kmsV1}, ""},
		{"KMS v1, associated data", boundTo1, seed.Wrapped{KeyID: kmsV1}, ""},
		{"KMS v1, associated data required", requires, seed.Wrapped{KeyID: kmsV1}, "requireAssociatedData is set; unset it"},
		{"KMS v1, not transit's", "", seed.Wrapped{KeyID: kmsV1, Ciphertext: []byte("AAAA")}, "not a transit ciphertext"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				w := b.wrapUnder("kek", tt.seed.KeyID)
				w.Annotations = tt.seed.Annotations
				if tt.seed.Ciphertext != nil {
					w.Ciphertext = tt.seed.Ciphertext
				}
				b.load(settings{extra: tt.extra})
				b.wantDecrypt(w, tt.wantProblem)
				b.roundTrip()
			})
		})
	}
}

// wantDecrypt checks that w is decrypted, or refused for good with a text.
func (b *bench) wantDecrypt(w seed.Wrapped, problem string) {
	b.t.Helper()
	ctx, cancel := b.request()
	defer cancel()
	plaintext, err := b.Decrypt(ctx, w)
	if problem == "" && (err != nil || string(plaintext) != "seed") {
		b.t.Errorf("Decrypt = %q, %v", plaintext, err)
	}
	if problem != "" && (fault.ClassOf(err) != fault.Invalid || !strings.Contains(err.Error(), problem)) {
		b.t.Errorf("Decrypt = %q, %v; want class invalid, %q", plaintext, err, problem)
	}
}

// TestBareKeyIDsAreReloaded switches the field on and off in a running process.
func TestBareKeyIDsAreReloaded(t *testing.T) {
	run(t, func(b *bench) {
		w := b.wrapUnder("kek", "1")
		b.load(settings{})
		b.wantDecrypt(w, "set acceptBareKeyIDs")
		b.load(settings{extra: accepting})
		b.wantDecrypt(w, "")
		b.load(settings{})
		b.wantDecrypt(w, "set acceptBareKeyIDs")
		if times, problem := b.logged(notUsed); times != 0 {
			t.Errorf("a reload was refused: %s", problem)
		}
	})
}

// TestSeedsWithoutAKey checks what the keys in keynames say of a seed that one of
// them, or another key, has wrapped, and that this says nothing of the key in use.
func TestSeedsWithoutAKey(t *testing.T) {
	tests := []struct {
		name   string
		before func(*bench, *vaulttest.Key) // with the second key, before the seed is wrapped with it
		after  func(*bench, *vaulttest.Key)
		keys   []string
		want   fault.Class
	}{
		{name: "second key", keys: []string{"kek", "next"}},
		{name: "first key too old", keys: []string{"kek", "next"},
			before: func(b *bench, _ *vaulttest.Key) { b.key.Rotate(); b.key.SetMinDecryptionVersion(2) }},
		{name: "first key without such a version", keys: []string{"kek", "next"},
			before: func(_ *bench, next *vaulttest.Key) { next.Rotate(); next.Rotate() }},
		{name: "a key that is gone before it", keys: []string{"kek", "gone", "next"}},
		{name: "not listed", keys: []string{"kek"}, want: fault.Invalid},
		{name: "gone", keys: []string{"kek", "next"}, want: fault.Invalid,
			after: func(_ *bench, next *vaulttest.Key) { next.Delete() }},
		{name: "too old", keys: []string{"kek", "next"}, want: fault.VersionTooOld,
			after: func(_ *bench, next *vaulttest.Key) { next.Rotate(); next.SetMinDecryptionVersion(2) }},
		{name: "a node that lags behind", keys: []string{"kek", "next"}, want: fault.VersionTooNew,
			before: func(_ *bench, next *vaulttest.Key) { next.Rotate() },
			after:  func(_ *bench, next *vaulttest.Key) { next.ForgetNewest() }},
		{name: "an outage", keys: []string{"kek", "next"}, want: fault.Sealed,
			after: func(b *bench, _ *vaulttest.Key) { b.vault.Seal() }},
		{name: "a denial", keys: []string{"kek", "next"}, want: fault.Denied,
			after: func(b *bench, _ *vaulttest.Key) { b.vault.Revoke(b.token) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				next := b.vault.CreateKey("next")
				if tt.before != nil {
					tt.before(b, next)
				}
				w := b.wrapUnder("next", "1")
				b.load(settings{keys: tt.keys, extra: accepting, token: b.vault.KMSToken("kek", "next", "gone")})
				keyID := b.roundTrip()
				if tt.after != nil {
					tt.after(b, next)
				}
				for _, id := range []string{"1", kmsV1} {
					w.KeyID = id
					ctx, cancel := b.request()
					plaintext, err := b.Decrypt(ctx, w)
					cancel()
					if fault.ClassOf(err) != tt.want || err == nil && string(plaintext) != "seed" {
						t.Errorf("key_id %q: Decrypt = %q, %v; want class %q", id, plaintext, err, tt.want)
					}
				}
				b.wantStatus(keyID, "")
				switch tt.want {
				case fault.Sealed, fault.Denied:
				default:
					b.after(2 * probeInterval)
					if err := b.Degraded(); err != nil || b.metric("trousseau_key_lost") != 0 {
						t.Errorf("degraded: %v", err)
					}
				}
			})
		})
	}
}

// TestBareKeyIDIsNoEvidence checks that decrypting what another plugin wrapped does not
// prove that the key version in use can decrypt.
func TestBareKeyIDIsNoEvidence(t *testing.T) {
	run(t, func(b *bench) {
		w := b.wrapUnder("kek", "1")
		b.key.Rotate()
		b.load(settings{extra: accepting})
		b.vault.Inject(refuse(vaulttest.OpDecrypt, "vault:v2:", 500))
		for range 10 {
			b.after(time.Minute)
			b.wantDecrypt(w, "")
		}
		b.wantStatus("", "longer ago than the grace")
	})
}

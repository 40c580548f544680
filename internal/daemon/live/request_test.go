// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// TestDeniedRequestWaitsForTheNextToken revokes the old token some time before the
// new one arrives. Requests in between succeed if their deadline allows.
func TestDeniedRequestWaitsForTheNextToken(t *testing.T) {
	tests := []struct {
		after time.Duration
		want  fault.Class
	}{
		{0, ""},
		{100 * time.Millisecond, ""},
		{time.Second, ""},
		{requestTimeout, fault.Denied},
	}
	for _, tt := range tests {
		t.Run(tt.after.String(), func(t *testing.T) {
			run(t, func(b *bench) {
				old := b.load(settings{})
				ctx, cancel := b.request()
				defer cancel()
				wrapped, err := b.Encrypt(ctx, []byte("seed"))
				if err != nil {
					t.Fatal(err)
				}
				b.vault.Revoke(old)
				outcome := make(chan error, 2)
				go func() {
					ctx, cancel := b.request()
					defer cancel()
					_, err := b.Encrypt(ctx, []byte("seed"))
					outcome <- err
				}()
				go func() {
					ctx, cancel := b.request()
					defer cancel()
					_, err := b.Decrypt(ctx, wrapped)
					outcome <- err
				}()
				synctest.Wait()
				if got := b.looks.Load(); got != 2 {
					t.Errorf("%d of 2 denied requests triggered a look at the file", got)
				}
				b.after(tt.after)
				b.load(settings{})
				for range 2 {
					if err := <-outcome; fault.ClassOf(err) != tt.want {
						t.Errorf("class = %q (%v), want %q", fault.ClassOf(err), err, tt.want)
					}
				}
			})
		})
	}
}

// TestTokenRevokedAroundTheRewrite revokes the old token this long before the new
// file is written; a negative time means after. Under continuous load, requests fail
// only if that is longer than a request's timeout, less the time reserved for its
// last attempt.
func TestTokenRevokedAroundTheRewrite(t *testing.T) {
	const lastChance = 200 * time.Millisecond
	for _, ms := range []time.Duration{-500, -100, -10, 0, 10, 100, 500, 1000, 1500, 1700, 1900, 2000} {
		before := ms * time.Millisecond
		t.Run(before.String(), func(t *testing.T) {
			run(t, func(b *bench) {
				old := b.load(settings{})
				b.after(2 * time.Second)
				var failed, made atomic.Int32
				var all sync.WaitGroup
				stop := make(chan struct{})
				all.Go(func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(25 * time.Millisecond):
						}
						all.Go(func() {
							ctx, cancel := b.request()
							defer cancel()
							made.Add(1)
							wrapped, err := b.Encrypt(ctx, []byte("seed"))
							if err == nil {
								_, err = b.Decrypt(ctx, wrapped)
							}
							if err != nil {
								failed.Add(1)
							}
						})
					}
				})
				b.after(time.Second)
				if before < 0 {
					b.load(settings{})
					b.after(-before)
					b.vault.Revoke(old)
				} else {
					b.vault.Revoke(old)
					b.after(before)
					b.load(settings{})
				}
				b.after(time.Second)
				close(stop)
				all.Wait()
				if got, want := failed.Load() > 0, before > requestTimeout-lastChance; got != want {
					t.Errorf("%d of %d requests failed, want any: %v", failed.Load(), made.Load(), want)
				}
			})
		})
	}
}

func TestDecryptRefusesWithoutAskingVault(t *testing.T) {
	tests := []struct{ name, keyID, ciphertext, want string }{
		{"no key_id of ours", "kek", "vault:v1:AAAA", "the key_id is not of the form"},
		{"a bare key_id", "1", "vault:v1:AAAA", "set acceptBareKeyIDs in config.yaml"},
		{"another key", "transit/other/v1@1", "vault:v1:AAAA", "names a key that keynames does not list"},
		{"another mount", "transit2/kek/v1@1", "vault:v1:AAAA", "names a key that keynames does not list"},
		{"another namespace", "ns/transit/kek/v1@1", "vault:v1:AAAA", "names a key that keynames does not list"},
		{"no ciphertext of transit's", "transit/kek/v1@1", "AAAA", "the ciphertext is not a transit ciphertext"},
		{"versions differ", "transit/kek/v1@1", "vault:v2:AAAA", "made by key version 2, its key_id names version 1"},
	}
	run(t, func(b *bench) {
		b.load(settings{})
		b.vault.ResetCounts()
		for _, tt := range tests {
			ctx, cancel := b.request()
			_, err := b.Decrypt(ctx, seed.Wrapped{KeyID: tt.keyID, Ciphertext: []byte(tt.ciphertext)})
			cancel()
			if fault.ClassOf(err) != fault.Invalid || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
		}
		if got := b.vault.Total(); got != 0 {
			t.Errorf("%d Vault calls", got)
		}
	})
}

// TestReplacedClientFinishesItsRequests checks that a request started with the old
// token succeeds although the new one has been adopted.
func TestReplacedClientFinishesItsRequests(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		release := b.vault.Inject(vaulttest.Fault{Hang: true, Times: 1, Match: vaulttest.Ops(vaulttest.OpEncrypt)})
		outcome := make(chan error, 1)
		go func() {
			ctx, cancel := b.request()
			defer cancel()
			_, err := b.Encrypt(ctx, []byte("seed"))
			outcome <- err
		}()
		synctest.Wait()
		b.load(settings{})
		if got := b.metric("trousseau_generation"); got != 2 {
			t.Fatalf("generation = %v", got)
		}
		release()
		if err := <-outcome; err != nil {
			t.Errorf("the running request ended with %v", err)
		}
	})
}

// TestReplacedClientLeavesNoConnection checks that a connection which was busy when
// its client was replaced is also closed.
func TestReplacedClientLeavesNoConnection(t *testing.T) {
	v := vaulttest.Start(t)
	v.CreateKey("kek")
	contents := make(chan watch.Content[*config.Config], 1)
	k := live.New(live.Options{
		Contents:         contents,
		RequestTimeout:   3 * time.Second,
		ProbeInterval:    time.Hour,
		MaxVaultRequests: 8,
		OutageGrace:      grace,
	})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { k.Run(ctx) })
	defer running.Wait()
	defer stop()
	load := func() {
		t.Helper()
		adopted := k.Replaced()
		token := v.KMSToken("kek")
		cfg, err := config.Parse(fmt.Appendf(nil,
			"provider: vault\nvault:\n  keynames: [kek]\n  address: %s\n  token: %s\n", v.URL(), token), nil)
		contents <- watch.Content[*config.Config]{Digest: token, Value: cfg, Err: err}
		<-adopted
	}
	load()
	release := v.Inject(vaulttest.Fault{Hang: true, Match: vaulttest.Ops(vaulttest.OpEncrypt), Times: 8})
	var requests sync.WaitGroup
	for range 8 {
		requests.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if _, err := k.Encrypt(bounded, []byte("seed")); err != nil {
				t.Errorf("Encrypt: %v", err)
			}
		})
	}
	bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := v.WaitInFlight(bounded, 8); err != nil {
		t.Fatal(err)
	}
	load()
	release()
	requests.Wait()
	// The remaining connection is the new client's.
	if err := v.WaitConnections(bounded, 1); err != nil {
		t.Errorf("%d connections: %v", v.Connections(), err)
	}
}

// refuse makes Vault answer status to the requests for an operation whose body has
// text in it.
func refuse(op, text string, status int) vaulttest.Fault {
	return vaulttest.Fault{
		Match: func(asked string, r *http.Request) bool {
			body, err := io.ReadAll(r.Body)
			return err == nil && asked == op && strings.Contains(string(body), text)
		},
		Status: status,
	}
}

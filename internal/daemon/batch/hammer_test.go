// SPDX-License-Identifier: Apache-2.0

package batch_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/daemon/batch"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// TestHammer makes thousands of random requests at a Vault with random faults. Each must get the outcome of its own
// item: compared with what the item is, and for an Encrypt with what Vault decrypts.
func TestHammer(t *testing.T) {
	const callers, each = 64, 120
	for _, refuses := range []bool{false, true} {
		t.Run(fmt.Sprintf("batches refused %v", refuses), func(t *testing.T) {
			before := runtime.NumGoroutine()
			b := newBench(t, 3)
			b.key.Rotate()
			pool := newItems(b)
			b.key.SetMinDecryptionVersion(2)
			b.vault.Inject(vaulttest.Fault{Rate: 0.3, Seed: 1, Delay: time.Millisecond})
			b.vault.Inject(vaulttest.Fault{Rate: 0.02, Seed: 2, Status: 500})
			b.vault.Inject(vaulttest.Fault{Rate: 0.02, Seed: 3, Status: 429})
			b.vault.Inject(vaulttest.Fault{Rate: 0.02, Seed: 4, Cut: vaulttest.CutBody})
			denied := vaulttest.Fault{Status: 403, Body: `{"errors":["permission denied"]}`}
			denied.Match, denied.Times = isBatch, 1 // two could mean that batches are refused
			b.vault.Inject(denied)
			denied.Match, denied.Times, denied.Rate = isSingle, 0, 0.02
			b.vault.Inject(denied)
			if refuses {
				b.vault.Inject(vaulttest.Fault{Match: isBatch, Status: 413})
			}
			var all sync.WaitGroup
			var served, failed atomic.Int64
			var encrypted sync.Map // plaintext → item to decrypt
			for c := range callers {
				all.Go(func() {
					random := rand.New(rand.NewPCG(uint64(c), 9))
					for i := range each {
						name := fmt.Sprintf("seed %d of %d", i, c)
						ctx, end := hurry(b.t.Context(), random)
						var err error
						var want fault.Class
						if random.IntN(2) == 0 {
							want, err = encryptOne(ctx, b.encrypt, random, name, &encrypted)
						} else {
							want, err = decryptOne(ctx, b.decrypt, pool[random.IntN(len(pool))])
						}
						deadline, bounded := ctx.Deadline()
						gone := ctx.Err() != nil || bounded && !time.Now().Before(deadline)
						end()
						class := fault.ClassOf(err)
						switch {
						case class == want:
							served.Add(1)
							continue
						case class == fault.Canceled || class == fault.Timeout || class == fault.Overloaded:
							if !gone {
								t.Errorf("%s: %v, but its time was not over", name, err)
							}
						case class != fault.Unavailable && class != fault.Throttled && class != fault.Denied:
							t.Errorf("%s: got class %q, want %q or a fault (%v)", name, class, want, err)
						}
						failed.Add(1)
					}
				})
			}
			all.Wait()
			b.vault.ClearFaults()
			encrypted.Range(func(plaintext, item any) bool {
				i := item.(vault.Item)
				got, err := b.client.Decrypt(t.Context(), "kek", i.Data, i.AssociatedData)
				if err != nil || string(got) != plaintext {
					t.Errorf("got the ciphertext of %q (%v), want that of %q", got, err, plaintext)
				}
				return true
			})
			eventually(t, "idle", func() bool { u, w := b.queue.Load(); return u == 0 && w == 0 })
			eventually(t, "no goroutine more than before", func() bool { return runtime.NumGoroutine() <= before })
			largest := slices.Max(b.made())
			t.Logf("%d served, %d failed, %d calls of up to %d items", served.Load(), failed.Load(), len(b.made()), largest)
			if served.Load() < callers*each/2 || largest < 2 {
				t.Error("the load is not what the test is about")
			}
			if want := map[bool]int{false: 0, true: 2}[refuses]; len(b.refused) != want {
				t.Errorf("%d lines report that batches are refused, want %d", len(b.refused), want)
			}
		})
	}
}

// known is an item to decrypt, with what Vault makes of it.
type known struct {
	item      vault.Item
	plaintext string
	class     fault.Class
}

// newItems makes items of every kind, with a key of three versions of which the first is about to be retired.
func newItems(b *bench) (pool []known) {
	for i := range 300 {
		plaintext, associated := fmt.Sprint("pool ", i), fmt.Sprint("cluster ", i%3)
		version := 1 + i%3
		ciphertext, _, err := b.client.Encrypt(b.t.Context(), "kek", version, []byte(plaintext), []byte(associated))
		if err != nil {
			b.t.Fatal(err)
		}
		k := known{vault.Item{Data: ciphertext, AssociatedData: []byte(associated)}, plaintext, ""}
		if version == 1 {
			k.class = fault.VersionTooOld
		}
		switch i % 10 {
		case 3:
			k.item.AssociatedData, k.class = []byte("cluster "+strconv.Itoa((i+1)%3)), fault.Invalid
		case 4:
			k.item.AssociatedData, k.class = nil, fault.Invalid
		case 5:
			k.item.Data, k.class = []byte("vault:v4:AAAA"), fault.VersionTooNew
		case 6:
			k.item.Data, k.class = []byte("x"), fault.Invalid
		}
		// Vault looks at the version first.
		if v, _ := vault.CiphertextVersion(k.item.Data); v == 1 {
			k.class = fault.VersionTooOld
		}
		pool = append(pool, k)
	}
	return pool
}

func encryptOne(ctx context.Context, l *batch.Line, random *rand.Rand, plaintext string, encrypted *sync.Map) (want fault.Class, err error) {
	item := vault.Item{Data: []byte(plaintext), Version: random.IntN(5), AssociatedData: fmt.Append(nil, random.IntN(3))}
	switch item.Version {
	case 1:
		want = fault.VersionTooOld
	case 4:
		want = fault.VersionTooNew
	}
	ciphertext, err := l.Do(ctx, item)
	if err == nil {
		if v, _ := vault.CiphertextVersion(ciphertext); item.Version != 0 && v != item.Version {
			return want, fault.Errorf(fault.KeyLost, "encrypted with version %d instead of %d", v, item.Version)
		}
		item.Data = ciphertext
		encrypted.Store(plaintext, item)
	}
	return want, err
}

func decryptOne(ctx context.Context, l *batch.Line, k known) (want fault.Class, err error) {
	plaintext, err := l.Do(ctx, k.item)
	if err == nil && string(plaintext) != k.plaintext {
		return k.class, fault.Errorf(fault.KeyLost, "got %q, want %q", plaintext, k.plaintext)
	}
	return k.class, err
}

// hurry returns a context that a caller in three cancels, or that ends, after a moment.
func hurry(ctx context.Context, random *rand.Rand) (context.Context, context.CancelFunc) {
	switch random.IntN(6) {
	case 0:
		return context.WithTimeout(ctx, time.Duration(random.IntN(4000))*time.Microsecond)
	case 1:
		ctx, cancel := context.WithCancel(ctx)
		stop := time.AfterFunc(time.Duration(random.IntN(4000))*time.Microsecond, cancel)
		return ctx, func() { stop.Stop(); cancel() }
	}
	return context.WithTimeout(ctx, time.Minute)
}

func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s after 20 s", what)
		}
	}
}

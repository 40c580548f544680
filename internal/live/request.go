// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/trousseau-io/trousseau/internal/vault"
)

// Encrypt wraps plaintext under the current key version and returns the
// ciphertext and the key_id it belongs to. It is bounded by ctx.
func (k *KEK) Encrypt(ctx context.Context, plaintext []byte) (ciphertext []byte, keyID string, err error) {
	v := k.view.Load()
	// What a lost key encrypts could not be read back.
	if vault.ClassOf(v.trouble) == vault.KeyLost {
		return nil, "", v.trouble
	}
	err = k.attempt(ctx, v, func(ctx context.Context, gen *Generation) error {
		keyID = gen.KeyID
		ciphertext, err = gen.encrypt(ctx, plaintext)
		return err
	})
	if err != nil {
		if vault.ClassOf(err) == vault.VersionTooOld {
			// min_encryption_version was raised: the prober finds what is
			// allowed now.
			k.suspect()
		}
		return nil, "", err
	}
	return ciphertext, keyID, nil
}

// Decrypt unwraps a ciphertext with the key version that keyID names. It is
// bounded by ctx. The caller owns the result.
func (k *KEK) Decrypt(ctx context.Context, keyID string, ciphertext []byte) (plaintext []byte, err error) {
	err = k.attempt(ctx, k.view.Load(), func(ctx context.Context, gen *Generation) error {
		plaintext, err = gen.decrypt(ctx, keyID, ciphertext)
		return err
	})
	return plaintext, err
}

const (
	// proofHolds is how long a proof is believed over a request that met
	// trouble, so that requests do not drive the prober.
	proofHolds = time.Second
	// undivided is the time below which an attempt is not cut short in favour
	// of another one.
	undivided = time.Second
)

// attempt makes a request with v's generation, and again as long as that can
// help: when the next token is there if Vault denied this one, and after a short
// pause if Vault could not be used, within ctx and the retry budget.
func (k *KEK) attempt(ctx context.Context, v *view, request func(context.Context, *Generation) error) error {
	if v.gen == nil {
		return v.trouble
	}
	k.retries.earn()
	pause := newBackoff(25*time.Millisecond, 400*time.Millisecond)
	for gen := v.gen; ; {
		err := try(ctx, gen, request)
		switch vault.ClassOf(err) {
		case vault.Denied:
			next := k.awaitNext(ctx, gen)
			if next == nil {
				return k.met(v, err)
			}
			gen = next
		case vault.Unavailable, vault.Sealed, vault.Throttled, vault.Timeout, vault.VersionTooNew:
			if ctx.Err() != nil || !k.retries.spend() || !sleep(ctx, pause.NextBackOff()) {
				return k.met(v, err)
			}
			// Another address may have been adopted meanwhile.
			gen = k.Current()
		default:
			return err
		}
	}
}

// try makes one attempt. One that hangs is cut while there is time for another.
func try(ctx context.Context, gen *Generation, request func(context.Context, *Generation) error) error {
	if deadline, ok := ctx.Deadline(); ok {
		if left := time.Until(deadline); left > undivided {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, left*3/5)
			defer cancel()
		}
	}
	return request(ctx, gen)
}

// awaitNext waits for a generation whose client is not gen's, as long as there
// is time left to use it; nil if none came.
func (k *KEK) awaitNext(ctx context.Context, gen *Generation) *Generation {
	k.opts.Look()
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-time.Until(deadline)/4))
		defer cancel()
	}
	for {
		v := k.view.Load()
		if v.gen.client != gen.client {
			return v.gen
		}
		select {
		case <-v.replaced:
		case <-ctx.Done():
			return nil
		}
	}
}

// met returns a failure that was final, and has the prober look at it.
func (k *KEK) met(v *view, err error) error {
	if time.Since(v.proven) > proofHolds {
		k.suspect()
	}
	return err
}

// suspect has the prober look now; it never blocks.
func (k *KEK) suspect() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// sleep reports whether d passed before ctx was done.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// budget bounds retries by requests: in an outage, when every request would be
// made again and again, Vault gets no more than two retries for each, beyond
// what was saved. It is safe for concurrent use.
type budget struct{ left atomic.Int64 }

const (
	retriesPerRequest = 2
	// savedRetries lets the requests of a quiet time, or the first of an
	// outage, use all the time they have.
	savedRetries = 100
)

// restore fills the budget: Vault has just been seen to work.
func (b *budget) restore() { b.left.Store(savedRetries) }

func (b *budget) earn() {
	if b.left.Load() < savedRetries {
		b.left.Add(retriesPerRequest)
	}
}

func (b *budget) spend() bool {
	if b.left.Add(-1) < 0 {
		b.left.Add(1)
		return false
	}
	return true
}

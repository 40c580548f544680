// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"

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

// proofHolds is how long a proof is believed over a request that met trouble,
// so that requests do not drive the prober.
const proofHolds = time.Second

// attempt makes a request with v's generation, and again as long as that can
// help: when the next token is there if Vault denied this one, and after a short
// pause if Vault could not be used, within ctx and the retry budget.
func (k *KEK) attempt(ctx context.Context, v *view, request func(context.Context, *Generation) error) error {
	if v.gen == nil {
		return v.trouble
	}
	k.retries.earn()
	pause := newBackoff(25*time.Millisecond, 250*time.Millisecond)
	retried := false
	for gen := v.gen; ; {
		err := try(ctx, gen, request)
		switch class := vault.ClassOf(err); {
		case class == vault.Denied:
			next := k.awaitNext(ctx, gen)
			if next == nil {
				k.met()
				return err
			}
			gen = next
		case class.Transient():
			if !k.awaitRetry(ctx, pause) {
				k.met()
				return err
			}
			retried = true
			// Another address may have been adopted meanwhile.
			gen = k.Current()
		default:
			if err == nil && retried {
				k.retries.refund()
			}
			return err
		}
	}
}

// awaitRetry pauses before another attempt and reports whether there is time for
// one. A budget that is spent does not end a request before its deadline: it has
// to wait for its turn, and Vault may be back by then.
func (k *KEK) awaitRetry(ctx context.Context, pause backoff.BackOff) bool {
	for sleep(ctx, pause.NextBackOff()) {
		if k.retries.spend() {
			return true
		}
		k.met()
	}
	return false
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

// met has the prober look at trouble that a request has met.
func (k *KEK) met() {
	if time.Since(k.view.Load().proven) > proofHolds {
		k.suspect()
	}
}

// suspect has the prober look now; it never blocks.
func (k *KEK) suspect() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

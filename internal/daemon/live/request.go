// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/seed"
)

// Encrypt wraps plaintext under the current key version. It is bounded by ctx.
func (k *KEK) Encrypt(ctx context.Context, plaintext []byte) (wrapped seed.Wrapped, err error) {
	v := k.view.Load()
	// What a lost key encrypts could not be read back.
	if fault.ClassOf(v.trouble) == fault.KeyLost {
		return seed.Wrapped{}, v.trouble
	}
	err = k.attempt(ctx, v, func(ctx context.Context, gen *Generation) error {
		wrapped, err = gen.encrypt(ctx, plaintext)
		return err
	})
	if fault.ClassOf(err) == fault.VersionTooOld {
		// min_encryption_version was raised: the prober finds what is allowed
		// now.
		k.suspect()
	}
	return wrapped, err
}

// Decrypt unwraps what Encrypt has wrapped, with the key version that it names.
// It is bounded by ctx. The caller owns the result.
func (k *KEK) Decrypt(ctx context.Context, wrapped seed.Wrapped) (plaintext []byte, err error) {
	err = k.attempt(ctx, k.view.Load(), func(ctx context.Context, gen *Generation) error {
		plaintext, err = gen.decrypt(ctx, wrapped)
		return err
	})
	return plaintext, err
}

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
		err := k.try(ctx, gen, request)
		switch class := fault.ClassOf(err); {
		case class == fault.Denied && !gen.client.Proxied():
			next := k.awaitNext(ctx, gen)
			if next == nil {
				return err
			}
			gen = next
		// An agent that is denied gets itself another token.
		case class.Transient(), class == fault.Denied:
			if !k.awaitRetry(ctx, pause) {
				k.suspect()
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
		k.suspect()
	}
	return false
}

// awaitNext waits for a generation whose client is not gen's, as long as there
// is time left to use it; nil if none came.
func (k *KEK) awaitNext(ctx context.Context, gen *Generation) *Generation {
	k.opts.Look()
	// The token may be one that we get another of ourselves.
	k.suspect()
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-lastChance))
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

// suspect has the prober look at trouble that a request has met; it never
// blocks.
func (k *KEK) suspect() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/seed"
)

// Encrypt wraps plaintext under the current key version. It is bounded by ctx.
func (k *KEK) Encrypt(ctx context.Context, plaintext []byte) (wrapped seed.Wrapped, err error) {
	v := k.view.Load()
	// What a lost key encrypts could not be read back.
	if fault.ClassOf(v.health.trouble) == fault.KeyLost {
		return seed.Wrapped{}, v.health.trouble
	}
	err = k.withRetries(ctx, v, func(ctx context.Context, gen *Generation) error {
		wrapped, err = gen.encrypt(ctx, plaintext)
		return err
	})
	if fault.ClassOf(err) == fault.VersionTooOld {
		// min_encryption_version was raised: the prober finds the version that is
		// allowed now.
		k.wakeProber()
	}
	return wrapped, err
}

// Decrypt unwraps what Encrypt has wrapped, with the key version that it names.
// It is bounded by ctx. The caller owns the result.
func (k *KEK) Decrypt(ctx context.Context, wrapped seed.Wrapped) (plaintext []byte, err error) {
	err = k.withRetries(ctx, k.view.Load(), func(ctx context.Context, gen *Generation) error {
		plaintext, err = gen.decrypt(ctx, wrapped)
		return err
	})
	return plaintext, err
}

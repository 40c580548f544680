// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/keyid"
)

// proofHolds is how long a proof outweighs a request that met trouble.
const proofHolds = time.Second

// probe proves the current generation every ProbeInterval until ctx is done, and
// sooner while it is in trouble or after a request has met trouble.
func (k *KEK) probe(ctx context.Context) {
	pause := newBackoff(500*time.Millisecond, min(5*time.Second, k.opts.ProbeInterval))
	token := tokenKeeper{kek: k, spread: 0.9 + rand.Float64()*0.2}
	for {
		// Taken before looking, so that no adoption is missed.
		replaced := k.Replaced()
		interval, wake := jitter(k.opts.ProbeInterval), k.wake
		if k.Current() != nil && k.Degraded() != nil {
			// The trouble is known: the backoff sets the pace, not the requests.
			interval, wake = pause.NextBackOff(), nil
		} else {
			pause.Reset()
			if next := token.nextCheck(); !next.IsZero() {
				interval = min(interval, max(time.Until(next), proofHolds/4))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-replaced:
			// Just proven: the interval starts again.
			continue
		case <-wake:
			if !wait(ctx, proofHolds-time.Since(k.view.Load().health.proven)) {
				return
			}
		case <-time.After(interval):
		}
		gen := k.Current()
		if gen == nil {
			continue
		}
		gen, err := k.probeOnce(ctx, gen)
		if ctx.Err() != nil {
			return
		}
		// If Vault cannot be used, its answer about the token can wait. A node that
		// lags behind can be asked.
		if class := fault.ClassOf(err); !class.Transient() || class == fault.VersionTooNew {
			token.check(ctx, gen, err)
		}
	}
}

// probeOnce proves gen and records the outcome. If its key has a newer version,
// the generation of that version is adopted and returned.
func (k *KEK) probeOnce(ctx context.Context, gen *Generation) (*Generation, error) {
	bounded, cancel := context.WithTimeout(ctx, k.opts.RequestTimeout)
	defer cancel()
	var next *Generation
	err := tryEachNode(bounded, gen.client, func(ctx context.Context) (err error) {
		next, err = gen.reprove(ctx)
		return err
	})
	if ctx.Err() != nil {
		return gen, ctx.Err()
	}
	if next != nil {
		if k.adopt(ctx, gen, next, k.view.Load().token.Token) {
			k.log.Info("key version adopted", next.fields()...)
		}
		return next, nil
	}
	k.recordProbe(gen, err)
	return gen, err
}

// reprove checks that g's ciphertexts can be decrypted and that Vault still
// encrypts. It returns the generation to adopt if the key has a newer version.
func (g *Generation) reprove(ctx context.Context) (next *Generation, err error) {
	err = g.canary.check(ctx, g.client, g.ID.Key)
	switch fault.ClassOf(err) {
	case fault.Invalid, fault.KeyLost, fault.VersionTooOld:
		return nil, fault.Errorf(fault.KeyLost, "key %s no longer decrypts what it encrypted: check whether it was deleted or recreated, or its min_decryption_version raised: %w", g.KeyID, err)
	}
	if err != nil {
		return nil, err
	}
	newest, err := proveNewest(ctx, g.client, g.config)
	switch {
	case err == nil && g.supersededBy(newest.ID):
		newest.Digest = g.Digest
		return newest, nil
	case err == nil && newest.ID.Version == g.ID.Version:
		return nil, nil
	}
	// The node lags behind, or the new version cannot be used yet. What counts is
	// whether the version in use still encrypts.
	_, _, err = newCanary(ctx, g.client, g.ID.Key, g.ID.Version, g.binding.Data)
	return nil, err
}

// supersededBy reports whether id, just read from Vault, replaces g's. A version
// never goes backwards, and a creation time is kept if policy no longer allows
// reading it: otherwise the key_id would flap.
func (g *Generation) supersededBy(id keyid.ID) bool {
	if id.Version != g.ID.Version {
		return id.Version > g.ID.Version
	}
	return id.Created != 0 && id.Created != g.ID.Created
}

func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}

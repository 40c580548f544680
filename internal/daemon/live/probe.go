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
// the generation of that version is adopted and returned. A node that fails is not
// the last word: the others are asked, and one of them proves gen if it can.
func (k *KEK) probeOnce(ctx context.Context, gen *Generation) (*Generation, error) {
	serving := gen.cluster.serving.Load()
	next, err := k.proveAt(ctx, gen, serving)
	if err != nil {
		k.checkNodes(ctx, gen, gen.cluster.rest(serving))
		if other := gen.cluster.serving.Load(); other != serving && other.usable() {
			next, err = k.proveAt(ctx, gen, other)
		}
		if err != nil {
			err = weightier(gen.cluster.verdict(), err)
		}
	}
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

// proveAt proves gen at one node, and again if the first answer was no use, within
// ProbeTimeout. It returns the generation to adopt if the key has a newer version.
func (k *KEK) proveAt(ctx context.Context, gen *Generation, n *node) (next *Generation, err error) {
	bounded, cancel := context.WithTimeout(ctx, k.opts.ProbeTimeout)
	defer cancel()
	for range 2 {
		if next, err = gen.reprove(bounded, n); !fault.ClassOf(err).Transient() || bounded.Err() != nil {
			break
		}
	}
	if ctx.Err() == nil {
		gen.cluster.recordCheck(n, err)
	}
	return next, err
}

// reprove checks that n can decrypt g's ciphertexts and that it still encrypts. It
// returns the generation to adopt if the key has a newer version.
func (g *Generation) reprove(ctx context.Context, n *node) (next *Generation, err error) {
	if err := g.heldBy(ctx, n); err != nil {
		return nil, err
	}
	newest, err := proveNewest(ctx, g.cluster, n, g.config, g.readable)
	switch {
	case err == nil && g.supersededBy(newest.ID):
		newest.Digest = g.Digest
		return newest, nil
	case err == nil && newest.ID.Version == g.ID.Version:
		return nil, nil
	}
	// The node lags behind, or the new version cannot be used yet. What counts is
	// whether the version in use still encrypts.
	_, _, err = newCanary(ctx, n, g.ID.Key, g.ID.Version, g.binding.Data)
	return nil, err
}

// tend checks the nodes that do not serve, until ctx is done, so that one that
// works is known when it is needed.
func (k *KEK) tend(ctx context.Context) {
	for {
		replaced := k.Replaced()
		interval := jitter(k.opts.ProbeInterval)
		if gen := k.Current(); gen != nil && !gen.cluster.settled() {
			interval = min(interval, recheck)
		}
		select {
		case <-ctx.Done():
			return
		case <-replaced:
			continue
		case <-time.After(interval):
		}
		if gen := k.Current(); gen != nil {
			k.checkNodes(ctx, gen, gen.cluster.idle())
			gen.cluster.prefer()
		}
	}
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

// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/keyid"
)

// probe proves the current generation every ProbeInterval, sooner while it is
// in trouble or a request has met trouble, until ctx is done.
func (k *KEK) probe(ctx context.Context) {
	pause := newBackoff(500*time.Millisecond, min(5*time.Second, k.opts.ProbeInterval))
	token := tender{k: k, spread: 0.9 + rand.Float64()*0.2}
	for {
		// Taken before looking, so that no adoption goes unnoticed.
		adopted := k.Adopted()
		wait, kick := jitter(k.opts.ProbeInterval), k.kick
		if k.Current() != nil && k.Degraded() != nil {
			// Known already: the backoff sets the pace, not the requests.
			wait, kick = pause.NextBackOff(), nil
		} else {
			pause.Reset()
			if next := token.next(); !next.IsZero() {
				wait = min(wait, max(time.Until(next), proofHolds/4))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-adopted:
			// Just proven: start the interval anew.
			continue
		case <-kick:
			// Requests do not drive the prober: a proof holds for a while.
			if !rest(ctx, proofHolds-time.Since(k.view.Load().proven)) {
				return
			}
		case <-time.After(wait):
		}
		gen := k.Current()
		if gen == nil {
			continue
		}
		gen, err := k.probeOnce(ctx, gen)
		if ctx.Err() != nil {
			return
		}
		// What a Vault that cannot be used has to say about the token can wait.
		if !fault.ClassOf(err).Transient() {
			token.look(ctx, gen, err)
		}
	}
}

// proofHolds is how long a proof is believed over a request that met trouble.
const proofHolds = time.Second

// rest waits for d and reports false if ctx is done.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// probeOnce proves gen and notes how it fares. If its key has a newer version,
// a generation for that one is adopted instead, and returned.
func (k *KEK) probeOnce(ctx context.Context, gen *Generation) (*Generation, error) {
	bounded, cancel := context.WithTimeout(ctx, k.opts.RequestTimeout)
	defer cancel()
	var next *Generation
	err := askAround(bounded, gen.client, func(ctx context.Context) (err error) {
		next, err = gen.prove(ctx)
		return err
	})
	if ctx.Err() != nil {
		return gen, ctx.Err()
	}
	if next != nil {
		if k.adopt(ctx, gen, next, k.view.Load().token) {
			k.log.Info("key version adopted", next.fields()...)
		}
		return next, nil
	}
	return gen, k.noteProbe(gen, err)
}

// catchUp is how long a Vault node may lag behind the others. An eventually
// consistent standby does by seconds; a Vault restored from a backup looks the
// same, and stays so.
const catchUp = time.Minute

// noteProbe records the outcome of a probe, logs it if it is another one than
// before, and returns what it comes to.
func (k *KEK) noteProbe(gen *Generation, err error) error {
	before, lagging := k.Degraded(), k.view.Load().lagging
	switch {
	case err == nil:
		lagging = time.Time{}
	case fault.ClassOf(err) != fault.VersionTooNew:
	case lagging.IsZero():
		lagging = time.Now()
	case time.Since(lagging) >= catchUp:
		err = fault.Errorf(fault.KeyLost, "vault at %s has not known version %d of key %s/%s for more than %s, and what it encrypted cannot be read: was Vault restored from a backup older than that version? "+
			"Restore one that has it; if there is none, restart trousseau to go on without it: %w", gen.client.Address(), gen.ID.Version, gen.ID.Engine, gen.ID.Key, catchUp, err)
	}
	k.note(gen, func(v *view) {
		v.trouble, v.lagging = err, lagging
		if err == nil {
			v.proven = time.Now()
		}
	})
	if err == nil {
		k.retries.restore()
	}
	switch class := fault.ClassOf(err); {
	case err == nil && before != nil:
		k.log.Info("the KEK is usable again", gen.fields()...)
	case class == fault.KeyLost && fault.ClassOf(before) != fault.KeyLost:
		k.log.Error("the KEK is lost: nothing can be encrypted until it is back", append(gen.fields(), zap.Error(err))...)
	case err != nil && before == nil:
		k.log.Warn("the KEK cannot be used", append(gen.fields(),
			zap.String("class", string(class)), zap.Duration("grace", k.opts.OutageGrace), zap.Error(err))...)
	}
	return err
}

// prove checks that what gen encrypted can be decrypted, and that Vault still
// encrypts: with gen's own key version, or with a newer one, for which it
// returns the generation to adopt.
func (g *Generation) prove(ctx context.Context) (next *Generation, err error) {
	err = g.canary.check(ctx, g.client, g.ID.Key)
	switch fault.ClassOf(err) {
	case fault.Invalid, fault.KeyLost, fault.VersionTooOld:
		return nil, fault.Errorf(fault.KeyLost, "key %s no longer decrypts what it encrypted; was it deleted, made anew, or its min_decryption_version raised? %w", g.KeyID, err)
	}
	if err != nil {
		return nil, err
	}
	fresh, err := newGeneration(ctx, g.client, g.config)
	switch {
	case err == nil && g.supersededBy(fresh.ID):
		fresh.Digest = g.Digest
		return fresh, nil
	case err == nil && fresh.ID.Version == g.ID.Version:
		return nil, nil
	}
	// The node that answered lags behind, or a new version is not usable yet:
	// what counts is whether ours still encrypts.
	_, _, err = newCanary(ctx, g.client, g.ID.Key, g.ID.Version, g.binding.Data)
	return nil, err
}

// supersededBy reports whether id, read from Vault just now, is to replace g's.
// A version never goes backwards, and a creation time that policy no longer
// lets us read is not forgotten: both would make the key_id flap.
func (g *Generation) supersededBy(id keyid.ID) bool {
	if id.Version != g.ID.Version {
		return id.Version > g.ID.Version
	}
	return id.Created != 0 && id.Created != g.ID.Created
}

func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}

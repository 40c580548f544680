// SPDX-License-Identifier: Apache-2.0

package live

import (
	"time"

	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// state is one of five. docs/architecture.md draws what leads from one to
// another, and TestHealthTransitions holds the drawing to this code.
type state int

const (
	stateNone        state = iota // no generation has been adopted
	stateOK                       // the last probe succeeded
	stateDegraded                 // it failed, and Status is still ok within the outage grace
	stateUnavailable              // it failed, and the grace is over
	stateLost                     // the key no longer decrypts: there is no grace
)

// health is the outcome of the last probe of the generation in use.
type health struct {
	// proven is when a round trip last succeeded.
	proven time.Time
	// trouble is why the last probe failed or, before the first adoption, why
	// there is no generation; nil after a success.
	trouble error
	// laggingSince is when Vault first did not know the key version in use; zero
	// if it knows it.
	laggingSince time.Time
}

// catchUp is how long a Vault node may lag behind. An eventually consistent
// standby does so for seconds. A Vault restored from a backup does not recover.
const catchUp = time.Minute

// after returns the health after a probe of gen that ended with err.
func (h health) after(gen *Generation, err error) health {
	if err == nil {
		return health{proven: time.Now()}
	}
	// An outage says nothing new about a key that is lost.
	if fault.ClassOf(h.trouble) == fault.KeyLost && fault.ClassOf(err) != fault.KeyLost {
		return h
	}
	h.trouble = err
	switch {
	case fault.ClassOf(err) != fault.VersionTooNew:
	case h.laggingSince.IsZero():
		h.laggingSince = time.Now()
	case time.Since(h.laggingSince) >= catchUp:
		h.trouble = fault.Errorf(fault.KeyLost, "vault at %s has not known version %d of key %s/%s for more than %s, and what it encrypted cannot be read: was Vault restored from a backup older than that version? "+
			"Restore one that has it; if there is none, restart trousseau to go on without it: %w", gen.client.Address(), gen.ID.Version, gen.ID.Engine, gen.ID.Key, catchUp, err)
	}
	return h
}

// state derives the state now.
func (v *view) state(grace time.Duration) state {
	switch {
	case v.gen == nil:
		return stateNone
	case v.health.trouble == nil:
		return stateOK
	case fault.ClassOf(v.health.trouble) == fault.KeyLost:
		return stateLost
	case time.Since(v.health.proven) > grace:
		return stateUnavailable
	}
	return stateDegraded
}

// Status returns the key_id to announce, or why there is none to rely on. It
// makes no Vault call and never blocks.
//
// While Vault cannot be used, the answer stays the same within the outage grace:
// kube-apiserver goes on with the seed it holds, and nothing it writes is at
// risk. A lost key changes the answer at once, because what is written from then
// on could not be read back.
func (k *KEK) Status() (keyID string, err error) {
	v := k.view.Load()
	switch v.state(k.opts.OutageGrace) {
	case stateNone, stateLost:
		return "", v.health.trouble
	case stateUnavailable:
		return "", fault.Errorf(fault.Unavailable, "vault could last be used at %s, longer ago than the grace of %s: %w",
			v.health.proven.UTC().Format(time.RFC3339), k.opts.OutageGrace, v.health.trouble)
	}
	return v.gen.KeyID, nil
}

// Degraded returns why the KEK cannot be fully used right now, nil if it can.
// Unlike [KEK.Status] it grants no grace.
func (k *KEK) Degraded() error { return k.view.Load().health.trouble }

// recordProbe records how a probe of gen ended and logs a change.
func (k *KEK) recordProbe(gen *Generation, err error) {
	var before, after health
	k.updateIf(gen, func(v *view) {
		before = v.health
		v.health = v.health.after(gen, err)
		after = v.health
	})
	if err == nil {
		k.retries.fill()
	}
	switch class := fault.ClassOf(after.trouble); {
	case after.trouble == nil && before.trouble != nil:
		k.log.Info("KEK usable again", gen.fields()...)
	case class == fault.KeyLost && fault.ClassOf(before.trouble) != fault.KeyLost:
		k.log.Error("KEK lost; encryption refused", append(gen.fields(), zap.Error(after.trouble))...)
	case after.trouble != nil && before.trouble == nil:
		k.log.Warn("KEK cannot be used", append(gen.fields(),
			zap.String("class", string(class)), zap.Duration("grace", k.opts.OutageGrace), zap.Error(after.trouble))...)
	}
}

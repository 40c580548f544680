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
	stateOK                       // the last probe succeeded, and is not too long ago
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
	// laggingSince is since when every probe has found that no node knows the key
	// version in use; zero if the last one did not.
	laggingSince time.Time
}

// catchUp is how long all nodes may lag behind. An eventually consistent standby
// does so for seconds. A Vault restored from a backup does not recover.
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
		h.laggingSince = time.Time{}
	case h.laggingSince.IsZero():
		h.laggingSince = time.Now()
	case time.Since(h.laggingSince) >= catchUp:
		h.trouble = fault.Errorf(fault.KeyLost, "no Vault node has known version %d of key %s/%s for more than %s, and what it encrypted cannot be read: was Vault restored from a backup older than that version? "+
			"Restore one that has it: %w", gen.ID.Version, gen.ID.Engine, gen.ID.Key, catchUp, err)
	}
	return h
}

// state derives the state now. last is when the key was last seen to work.
func (k *KEK) state(v *view) (s state, last time.Time) {
	last = v.health.proven
	// A request that decrypts is evidence too. One that encrypts is not: what it has
	// encrypted might be unreadable.
	if worked := time.Unix(0, k.worked.Load()); worked.After(last) {
		last = worked
	}
	lost := fault.ClassOf(v.health.trouble) == fault.KeyLost
	trust := k.opts.OutageGrace
	if v.health.trouble == nil {
		// Probes should have come. If none has, the prober does not work, or this
		// machine was suspended.
		trust += 2 * k.opts.ProbeInterval
	}
	switch {
	case v.gen == nil:
		return stateNone, last
	case lost:
		return stateLost, last
	case since(last) > trust:
		return stateUnavailable, last
	case v.health.trouble == nil:
		return stateOK, last
	}
	return stateDegraded, last
}

// since is the time since t. The wall clock counts too, because the monotonic one
// stands still while the machine is suspended.
func since(t time.Time) time.Duration {
	return max(time.Since(t), time.Now().Round(0).Sub(t.Round(0)))
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
	state, last := k.state(v)
	switch {
	case state == stateNone || state == stateLost:
		return "", v.health.trouble
	case state == stateUnavailable && v.health.trouble == nil:
		k.wakeProber()
		return "", unprobed(last)
	case state == stateUnavailable:
		return "", fault.Errorf(fault.Unavailable, "vault could last be used at %s, longer ago than the grace of %s: %w",
			last.UTC().Format(time.RFC3339), k.opts.OutageGrace, v.health.trouble)
	}
	return v.gen.KeyID, nil
}

// Degraded returns why the KEK cannot be fully used right now, nil if it can.
// Unlike [KEK.Status] it grants no grace.
func (k *KEK) Degraded() error { return k.degraded(k.view.Load()) }

func (k *KEK) degraded(v *view) error {
	if state, last := k.state(v); state == stateUnavailable && v.health.trouble == nil {
		return unprobed(last)
	}
	return v.health.trouble
}

func unprobed(last time.Time) error {
	return fault.Errorf(fault.Unavailable, "the key was last proven at %s, and no probe has ended since: was this machine suspended, or its clock set?",
		last.UTC().Format(time.RFC3339))
}

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

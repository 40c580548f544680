// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// tender keeps the token in use alive: it renews one that Vault lets us renew,
// gets another one where the credential allows that, and warns in time where
// nobody but the operator can do anything. It is the prober's alone, which makes
// renewals and logins single-flight.
type tender struct {
	k *KEK
	// spread moves the moments of several nodes apart.
	spread float64
	// client is the one whose token the rest is about.
	client *vault.Client
	// until is before when nothing is tried again.
	until time.Time
	pause pause
	// warned is the last of warnings that has been given, and said the last
	// trouble that has been logged.
	warned time.Duration
	said   string
}

// warnings are how long before its end an operator hears of a token's death.
var warnings = []time.Duration{7 * 24 * time.Hour, 24 * time.Hour, time.Hour}

// look asks about gen's token and does what is due. The problem is what the
// proof just before has met; nil for none.
func (t *tender) look(ctx context.Context, gen *Generation, problem error) {
	if gen.client != t.client {
		*t = tender{k: t.k, spread: t.spread, client: gen.client, pause: newPause()}
	}
	bounded, cancel := context.WithTimeout(ctx, t.k.opts.RequestTimeout)
	defer cancel()
	if token, err := gen.client.LookupSelf(bounded); err == nil {
		t.k.note(gen, func(v *view) { v.token = token })
	}
	v := t.k.view.Load()
	switch {
	case v.gen != gen || gen.client.Proxied():
	case gen.client.Mints() && fault.ClassOf(problem) == fault.Denied:
		t.logIn(ctx, gen)
	case v.token.Expires.IsZero(): // lives for ever, or is not known
	case !v.renewable() && !gen.client.Mints():
		t.warn(v.token)
	case time.Now().Before(t.due(v)):
	case v.renewable() && t.renew(bounded, v):
	case gen.client.Mints():
		t.logIn(ctx, gen)
	}
}

// next is when to look again at the latest: the zero time if it does not matter.
func (t *tender) next() time.Time {
	v := t.k.view.Load()
	if v.gen == nil || v.gen.client.Proxied() {
		return time.Time{}
	}
	if v.token.Asked.IsZero() && v.gen.client != t.client {
		return time.Now() // Vault was too slow to be asked when it was adopted
	}
	if v.token.Expires.IsZero() || !v.renewable() && !v.gen.client.Mints() {
		return time.Time{}
	}
	due := t.due(v)
	if v.gen.client == t.client && t.until.After(due) {
		return t.until
	}
	return due
}

// due is when the last third of the token's life begins, or about that.
func (t *tender) due(v *view) time.Time {
	margin := time.Duration(t.spread * float64(v.token.Lease) / 3)
	return v.token.Asked.Add(v.token.Left - margin)
}

// renew extends the life of the token. It reports false if Vault does not do so
// any more.
func (t *tender) renew(ctx context.Context, v *view) bool {
	if time.Now().Before(t.until) {
		return true
	}
	left := v.token.Left - time.Since(v.token.Asked)
	token, err := v.gen.client.Renew(ctx)
	switch {
	// Vault answers 500 where a role has changed or the maximum is just over;
	// another login is no worse than another attempt.
	case fault.ClassOf(err).Transient() && v.gen.client.Mints():
		return false
	case fault.ClassOf(err).Transient():
		t.failed("the Vault token could not be renewed", err)
		return true
	// At its maximum TTL a token is renewed with what it has left anyway.
	case err != nil, token.Left < left+v.token.Lease/20:
		t.k.note(v.gen, func(v *view) { v.final = true })
		t.k.log.Info("Vault does not extend the life of the token any more", zap.Time("expires", v.token.Expires), zap.Error(err))
		return false
	}
	t.succeeded()
	t.k.note(v.gen, func(v *view) { v.token = token })
	t.k.log.Debug("the Vault token was renewed", zap.Time("expires", token.Expires))
	return true
}

// logIn gets another token and adopts it, as if the configuration had changed.
func (t *tender) logIn(ctx context.Context, gen *Generation) {
	if time.Now().Before(t.until) {
		return
	}
	candidate, token, err := t.k.prepare(ctx, gen.config, gen.Digest)
	adopted := false
	if err == nil {
		if adopted, err = t.k.settle(ctx, gen, candidate, token); !adopted {
			t.k.discard(ctx, candidate.client)
		}
	}
	if err != nil {
		t.failed("Vault gives no other token", err)
		return
	}
	t.succeeded()
	if adopted {
		t.k.log.Info("logged in to Vault anew", append(candidate.fields(), zap.Time("expires", token.Expires))...)
	}
}

func (t *tender) failed(what string, err error) {
	t.until = time.Now().Add(t.pause.after(err))
	if err.Error() == t.said {
		return
	}
	t.said = err.Error()
	t.k.log.Warn(what, zap.String("class", classOf(err)), zap.Error(err))
}

func (t *tender) succeeded() {
	t.until, t.said = time.Time{}, ""
	t.pause.reset()
}

// warn says that the token will die and that nobody prevents it, once at each of
// the warnings that is shorter than the token's whole life.
func (t *tender) warn(token vault.Token) {
	for _, before := range warnings {
		if token.Lease <= before || token.Left > before || t.warned != 0 && t.warned <= before {
			continue
		}
		t.warned = before
		t.k.log.Warn("the Vault token will die and is not renewed: write a new one",
			zap.Duration("within", before), zap.Time("expires", token.Expires))
	}
}

// renewable reports whether the token's life can be extended.
func (v *view) renewable() bool { return v.token.Renewable && !v.final }

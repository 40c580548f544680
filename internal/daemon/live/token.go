// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// tokenState is what Vault last said of the token in use.
type tokenState struct {
	vault.Token
	// final means that Vault no longer extends the token.
	final bool
}

func (t tokenState) renewable() bool { return t.Renewable && !t.final }

// tokenKeeper keeps the token in use alive: it renews a token that is renewable,
// logs in again where the credential allows that, and otherwise warns before the
// token expires. Only the prober uses it, so renewals and logins never overlap.
type tokenKeeper struct {
	kek *KEK
	// spread keeps several nodes from renewing at the same moment.
	spread float64
	// client is the one that the fields below belong to.
	client *vault.Client
	// notBefore is when a renewal or login may be tried again.
	notBefore time.Time
	pause     pause
	// warned is the shortest of warnings given, logged the last trouble logged.
	warned time.Duration
	logged string
}

// warnings are how long before its expiry an operator is told.
var warnings = []time.Duration{7 * 24 * time.Hour, 24 * time.Hour, time.Hour}

// check asks Vault about gen's token and does what is due. trouble is the outcome
// of the probe just before.
func (t *tokenKeeper) check(ctx context.Context, gen *Generation, trouble error) {
	if gen.client != t.client {
		*t = tokenKeeper{kek: t.kek, spread: t.spread, client: gen.client, pause: newPause()}
	}
	bounded, cancel := context.WithTimeout(ctx, t.kek.opts.RequestTimeout)
	defer cancel()
	if token, err := gen.client.LookupSelf(bounded); err == nil {
		t.kek.updateIf(gen, func(v *view) { v.token.Token = token })
	}
	v := t.kek.view.Load()
	switch {
	case v.gen != gen || gen.client.Proxied():
	case gen.client.Mints() && fault.ClassOf(trouble) == fault.Denied:
		t.logIn(ctx, gen)
	case v.token.Expires.IsZero(): // never expires, or is unknown
	case !v.token.renewable() && !gen.client.Mints():
		t.warn(v.token.Token)
	case time.Now().Before(t.due(v.token)):
	case v.token.renewable() && t.renew(bounded, v):
	case gen.client.Mints():
		t.logIn(ctx, gen)
	}
}

// nextCheck is when check must be called at the latest; zero for no such time.
func (t *tokenKeeper) nextCheck() time.Time {
	v := t.kek.view.Load()
	switch {
	case v.gen == nil || v.gen.client.Proxied():
		return time.Time{}
	case v.token.Asked.IsZero() && v.gen.client != t.client:
		return time.Now() // Vault was too slow to be asked at the adoption
	case v.token.Expires.IsZero() || !v.token.renewable() && !v.gen.client.Mints():
		return time.Time{}
	}
	due := t.due(v.token)
	if v.gen.client == t.client && t.notBefore.After(due) {
		return t.notBefore
	}
	return due
}

// due is when about a third of the token's life is left.
func (t *tokenKeeper) due(token tokenState) time.Time {
	margin := time.Duration(t.spread * float64(token.Lease) / 3)
	return token.Asked.Add(token.Left - margin)
}

// renew extends the token's life. It reports false if Vault no longer does so.
func (t *tokenKeeper) renew(ctx context.Context, v *view) bool {
	if time.Now().Before(t.notBefore) {
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
		t.failed("Vault token renewal failed", err)
		return true
	// At its maximum TTL, a renewal only returns what is left anyway.
	case err != nil, token.Left < left+v.token.Lease/20:
		t.kek.updateIf(v.gen, func(v *view) { v.token.final = true })
		t.kek.log.Info("Vault no longer extends the token", zap.Time("expires", v.token.Expires), zap.Error(err))
		return false
	}
	t.succeeded()
	t.kek.updateIf(v.gen, func(v *view) { v.token.Token = token })
	t.kek.log.Debug("Vault token renewed", zap.Time("expires", token.Expires))
	return true
}

// logIn gets a new token and adopts it as if the configuration had changed.
func (t *tokenKeeper) logIn(ctx context.Context, gen *Generation) {
	if time.Now().Before(t.notBefore) {
		return
	}
	candidate, token, err := t.kek.newCandidate(ctx, gen.config, gen.Digest)
	adopted := false
	if err == nil {
		if adopted, err = t.kek.adoptChecked(ctx, gen, candidate, token); !adopted {
			t.kek.closeAfter(ctx, 0, candidate.client)
		}
	}
	if err != nil {
		t.failed("re-login to Vault failed", err)
		return
	}
	t.succeeded()
	if adopted {
		t.kek.log.Info("logged in to Vault again", append(candidate.fields(), zap.Time("expires", token.Expires))...)
	}
}

func (t *tokenKeeper) failed(message string, err error) {
	t.notBefore = time.Now().Add(t.pause.after(err))
	if err.Error() != t.logged {
		t.logged = err.Error()
		t.kek.log.Warn(message, zap.String("class", classOf(err)), zap.Error(err))
	}
}

func (t *tokenKeeper) succeeded() {
	t.notBefore, t.logged = time.Time{}, ""
	t.pause.reset()
}

// warn tells that the token expires, once for each of warnings that is shorter
// than the token's whole life.
func (t *tokenKeeper) warn(token vault.Token) {
	for _, before := range warnings {
		if token.Lease <= before || token.Left > before || t.warned != 0 && t.warned <= before {
			continue
		}
		t.warned = before
		t.kek.log.Warn("Vault token expires soon and cannot be renewed; issue a new one",
			zap.Duration("within", before), zap.Time("expires", token.Expires))
	}
}

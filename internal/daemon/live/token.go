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
	// cluster is the one that the fields below belong to.
	cluster *cluster
	// pause delays a renewal or login after one that failed.
	pause pause
	// warned is the shortest of warnings given, logged the last trouble logged.
	warned time.Duration
	logged string
}

// warnings are how long before its expiry an operator is told.
var warnings = []time.Duration{7 * 24 * time.Hour, 24 * time.Hour, time.Hour}

// check asks Vault about gen's token and does what is due. trouble is the outcome
// of the probe just before.
func (t *tokenKeeper) check(ctx context.Context, gen *Generation, trouble error) {
	if gen.cluster != t.cluster {
		*t = tokenKeeper{kek: t.kek, spread: t.spread, cluster: gen.cluster, pause: newPause(t.kek)}
	}
	if token, err := lookUp(ctx, gen.cluster, t.kek.opts.ProbeTimeout/3); err == nil {
		t.kek.updateIf(gen, func(v *view) { v.token.Token = token })
	}
	v, mints := t.kek.view.Load(), gen.cluster.nodes[0].Mints()
	switch {
	case v.gen != gen || gen.cluster.nodes[0].Proxied():
	case mints && fault.ClassOf(trouble) == fault.Denied:
		t.logIn(ctx, gen)
	case v.token.Expires.IsZero(): // never expires, or is unknown
	case !v.token.renewable() && !mints:
		t.warn(v.token.Token)
	case time.Now().Before(t.due(v.token)):
	case v.token.renewable() && t.renew(ctx, v):
	case mints:
		t.logIn(ctx, gen)
	}
}

// nextCheck is when check must be called at the latest; zero for no such time.
func (t *tokenKeeper) nextCheck() time.Time {
	v := t.kek.view.Load()
	if v.gen == nil || v.gen.cluster.nodes[0].Proxied() {
		return time.Time{}
	}
	known := v.gen.cluster == t.cluster
	switch {
	case v.token.Asked.IsZero() && !known:
		return time.Now() // Vault was too slow to be asked at the adoption
	case v.token.Expires.IsZero() || !v.token.renewable() && !v.gen.cluster.nodes[0].Mints():
		return time.Time{}
	}
	due := t.due(v.token)
	if known && t.pause.until.After(due) {
		return t.pause.look()
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
	if !t.pause.over(ctx, v.gen.config) {
		return true
	}
	left := v.token.Left - time.Since(v.token.Asked)
	bounded, cancel := context.WithTimeout(ctx, t.kek.opts.ProbeTimeout)
	defer cancel()
	token, err := v.gen.cluster.serving.Load().Renew(bounded)
	switch {
	// Vault answers 500 where a role has changed or the maximum is just over;
	// another login is no worse than another attempt.
	case fault.ClassOf(err).Transient() && v.gen.cluster.nodes[0].Mints():
		return false
	case fault.ClassOf(err).Transient():
		t.failed(ctx, v.gen, "Vault token renewal failed", err)
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
	if !t.pause.over(ctx, gen.config) {
		return
	}
	candidate, token, err := t.kek.newCandidate(ctx, gen.config, gen.Digest, gen)
	if err != nil {
		t.failed(ctx, gen, "re-login to Vault failed", err)
		return
	}
	t.succeeded()
	candidate.inherit(gen)
	if !t.kek.adopt(ctx, gen, candidate, token) {
		t.kek.closeAfter(ctx, 0, candidate.cluster) // the loader was faster
		return
	}
	t.kek.log.Info("logged in to Vault again", append(candidate.fields(), zap.Time("expires", token.Expires))...)
}

func (t *tokenKeeper) failed(ctx context.Context, gen *Generation, message string, err error) {
	t.pause.begin(ctx, gen.config, err)
	if err.Error() != t.logged {
		t.logged = err.Error()
		t.kek.log.Warn(message, zap.String("class", classOf(err)), zap.Error(err), zap.Time("next_attempt", t.pause.until))
	}
}

func (t *tokenKeeper) succeeded() {
	t.logged = ""
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

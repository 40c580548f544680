// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"slices"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/upstream"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// prepare makes a candidate: a client for cfg's Vault that has a token, and the
// newest version of the first key, proven. The caller adopts or discards it.
func (k *KEK) prepare(ctx context.Context, cfg *config.Config, digest string) (*Generation, vault.Token, error) {
	if address := cfg.Vault.InTheClear(); address != "" && k.opts.RequireTLS {
		return nil, vault.Token{}, refusef(classConfig, "vault's address %s is not https, and --require-tls is set: the token would travel in the clear", address)
	}
	dial := upstream.Config(&cfg.Vault)
	dial.Metrics, dial.Transport = k.vault, k.opts.Transport
	client, err := vault.Dial(dial)
	if err != nil {
		return nil, vault.Token{}, &loadError{class: classConfig, err: err}
	}
	bounded, cancel := context.WithTimeout(ctx, k.opts.RequestTimeout)
	defer cancel()
	candidate, token, err := prove(bounded, client, cfg)
	if err != nil {
		k.discard(ctx, client)
		return nil, vault.Token{}, err
	}
	candidate.Digest = digest
	return candidate, token, nil
}

// prove has client log in and proves the key with it.
func prove(ctx context.Context, client *vault.Client, cfg *config.Config) (candidate *Generation, token vault.Token, err error) {
	err = askAround(ctx, client, func(ctx context.Context) error {
		token, err = client.Login(ctx)
		return err
	})
	if fault.ClassOf(err) == fault.Denied {
		// Vault locks an AppRole out after five refusals within a quarter of an
		// hour (developer.hashicorp.com/vault/docs/concepts/user-lockout).
		return nil, token, &loadError{class: classLogin, err: err, patient: cfg.Vault.Credential.Method == config.AppRole}
	}
	if err != nil {
		return nil, token, err
	}
	if known, err := lookUp(ctx, client); err == nil {
		token = known
	}
	if token.Uses != 0 {
		return nil, token, refusef(classToken, "the token is good for a number of requests only, and each request uses one up: make one without num_uses (token_num_uses)")
	}
	err = askAround(ctx, client, func(ctx context.Context) error {
		candidate, err = newGeneration(ctx, client, cfg)
		return err
	})
	return candidate, token, err
}

// lookUp asks about the client's token, with a share of the time only: what
// keeps that from working must not keep a good configuration out.
func lookUp(ctx context.Context, client *vault.Client) (vault.Token, error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/3)
		defer cancel()
	}
	return client.LookupSelf(ctx)
}

// settle adopts a proven candidate in active's place, unless that would orphan
// data. It reports false if active is no longer the one in use.
func (k *KEK) settle(ctx context.Context, active, candidate *Generation, token vault.Token) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, k.opts.RequestTimeout)
	defer cancel()
	if err := continuity(bounded, active, candidate); err != nil {
		return false, err
	}
	candidate.inherit(active)
	return k.adopt(ctx, active, candidate, token), nil
}

// continuity reports why adopting candidate in active's place would orphan what
// active has encrypted, nil if it would not.
func continuity(ctx context.Context, active, candidate *Generation) error {
	if active == nil {
		return nil
	}
	key := active.ID.Key
	if candidate.ID.Engine != active.ID.Engine {
		return refusef(classRefusedEngine, "the new configuration names the transit engine %s, but data is encrypted by %s: move back, or re-encrypt everything under another provider first",
			candidate.ID.Engine, active.ID.Engine)
	}
	if !slices.Contains(candidate.keys, key) {
		return refusef(classRefusedKey, "the new configuration does not list the key %s, under which data is encrypted: keep it in keynames, after the new first key", key)
	}
	if err := rebinding(active.binding, candidate.binding); err != nil {
		return &loadError{class: classRefusedBinding, err: err}
	}
	if candidate.ID.Key == key && candidate.ID.Version < active.ID.Version {
		return fault.Errorf(fault.VersionTooNew, "vault at %s reports version %d of key %s, version %d is in use: that node lags behind, or Vault was restored from an older backup",
			candidate.client.Address(), candidate.ID.Version, key, active.ID.Version)
	}
	err := active.canary.check(ctx, candidate.client, key)
	switch fault.ClassOf(err) {
	case fault.Invalid, fault.KeyLost, fault.VersionTooOld:
		return refusef(classRefusedVault, "the new configuration's Vault cannot decrypt what the one in use encrypts; is it another Vault, or was the key made anew? %w", err)
	}
	return err
}

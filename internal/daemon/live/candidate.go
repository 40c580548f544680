// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"slices"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/upstream"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// newCandidate makes a client for cfg's Vault, logs in, and proves the newest
// version of the first key. The caller adopts or discards the candidate.
func (k *KEK) newCandidate(ctx context.Context, cfg *config.Config, digest string) (*Generation, vault.Token, error) {
	if address := cfg.Vault.InTheClear(); address != "" && k.opts.RequireTLS {
		return nil, vault.Token{}, refusef(classConfig, "vault's address %s is not https, and --require-tls is set: the token would be sent unencrypted", address)
	}
	dial := upstream.Config(&cfg.Vault)
	dial.Metrics, dial.Transport = k.vault, k.opts.Transport
	client, err := vault.Dial(dial)
	if err != nil {
		return nil, vault.Token{}, &reloadError{class: classConfig, err: err}
	}
	bounded, cancel := context.WithTimeout(ctx, k.opts.RequestTimeout)
	defer cancel()
	candidate, token, err := k.logInAndProve(bounded, client, cfg)
	if err != nil {
		k.closeAfter(ctx, 0, client)
		return nil, vault.Token{}, err
	}
	candidate.Digest = digest
	return candidate, token, nil
}

func (k *KEK) logInAndProve(ctx context.Context, client *vault.Client, cfg *config.Config) (candidate *Generation, token vault.Token, err error) {
	err = tryEachNode(ctx, client, func(ctx context.Context) error {
		token, err = client.Login(ctx)
		return err
	})
	if fault.ClassOf(err) == fault.Denied {
		// Vault locks an AppRole out after five refusals within a quarter of an
		// hour (developer.hashicorp.com/vault/docs/concepts/user-lockout).
		return nil, token, &reloadError{class: classLogin, err: err, patient: cfg.Vault.Credential.Method == config.AppRole}
	}
	if err != nil {
		return nil, token, err
	}
	// A look-up that hangs must not keep a good configuration out.
	brief, cancel := context.WithTimeout(ctx, k.opts.RequestTimeout/3)
	defer cancel()
	if known, err := client.LookupSelf(brief); err == nil {
		token = known
	}
	if token.Uses != 0 {
		return nil, token, refusef(classToken, "the token is good for a limited number of requests, and each request uses one: issue one without num_uses (token_num_uses)")
	}
	err = tryEachNode(ctx, client, func(ctx context.Context) error {
		candidate, err = proveNewest(ctx, client, cfg)
		return err
	})
	return candidate, token, err
}

// adoptChecked adopts a proven candidate in active's place, unless that would
// orphan data. It reports false if active is no longer the one in use.
func (k *KEK) adoptChecked(ctx context.Context, active, candidate *Generation, token vault.Token) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, k.opts.RequestTimeout)
	defer cancel()
	if err := checkContinuity(bounded, active, candidate); err != nil {
		return false, err
	}
	candidate.inherit(active)
	return k.adopt(ctx, active, candidate, token), nil
}

// checkContinuity reports why adopting candidate in active's place would orphan
// what active has encrypted; nil if it would not.
func checkContinuity(ctx context.Context, active, candidate *Generation) error {
	if active == nil {
		return nil
	}
	key, before, after := active.ID.Key, active.binding, candidate.binding
	switch {
	case candidate.ID.Engine != active.ID.Engine:
		return refusef(classRefusedEngine, "the new configuration names the transit engine %s, but data is encrypted by %s: move back, or re-encrypt everything under another provider first",
			candidate.ID.Engine, active.ID.Engine)
	case !slices.Contains(candidate.keys, key):
		return refusef(classRefusedKey, "the new configuration does not list the key %s, under which data is encrypted: keep it in keynames, after the new first key", key)
	case before.Data != nil && string(before.Data) != string(after.Data):
		return refusef(classRefusedBinding, "the new configuration changes or removes associatedData, but data is bound to the current value: restore it")
	case before.Data == nil && after.Required:
		return refusef(classRefusedBinding, "the new configuration sets requireAssociatedData, but no data is bound yet: set associatedData alone, re-encrypt everything, then require it")
	case candidate.ID.Key == key && candidate.ID.Version < active.ID.Version:
		return fault.Errorf(fault.VersionTooNew, "vault at %s reports version %d of key %s, version %d is in use: that node lags behind, or Vault was restored from an older backup",
			candidate.client.Address(), candidate.ID.Version, key, active.ID.Version)
	}
	err := active.canary.check(ctx, candidate.client, key)
	switch fault.ClassOf(err) {
	case fault.Invalid, fault.KeyLost, fault.VersionTooOld:
		return refusef(classRefusedVault, "the new configuration's Vault cannot decrypt what the current one encrypts: check whether it is another Vault or the key was recreated: %w", err)
	}
	return err
}

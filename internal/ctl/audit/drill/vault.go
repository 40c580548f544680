// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"fmt"
	"slices"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/upstream"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Vault unwraps seeds as Trousseau does, through the client of Trousseau and with
// its configuration. It needs "update" on <mount>/decrypt/<key>, and never
// encrypts. The caller must Close it.
type Vault struct {
	config *config.Config
	client *vault.Client
}

// DialVault connects and logs in to the Vault of cfg, within ctx.
func DialVault(ctx context.Context, cfg *config.Config) (*Vault, error) {
	client, err := vault.Dial(upstream.Config(&cfg.Vault))
	if err != nil {
		return nil, err
	}
	err = tryEachNode(client, func() error {
		_, err := client.Login(ctx)
		return err
	})
	// Without a login, this is the first call: it shows whether Vault is usable. A
	// policy may deny it and still allow to decrypt.
	if err == nil && !client.Mints() && !client.Proxied() {
		err = tryEachNode(client, func() error {
			if _, err := client.LookupSelf(ctx); fault.ClassOf(err).Transient() {
				return err
			}
			return nil
		})
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	return &Vault{config: cfg, client: client}, nil
}

// tryEachNode repeats call until a node of Vault was usable: the client moves on to
// the next node by itself.
func tryEachNode(client *vault.Client, call func() error) (err error) {
	for range max(2, client.Nodes()) {
		if err = call(); !fault.ClassOf(err).Transient() {
			return err
		}
	}
	return err
}

// Close revokes the token of the login, if there was one, and closes the
// connections.
func (v *Vault) Close(ctx context.Context) {
	_ = v.client.Revoke(ctx)
	v.client.Close()
}

// Unwrap refuses the seeds that Trousseau refuses, and asks Vault to decrypt the
// others. Its errors are [*Failure]s.
func (v *Vault) Unwrap(ctx context.Context, w seed.Wrapped) ([]byte, error) {
	id, err := keyid.Parse(w.KeyID)
	if err != nil {
		return nil, &Failure{Verdict: Unknown, Reason: "its key_id is not one of Trousseau's; use --plugin with the plugin that wrapped it"}
	}
	if id.Engine != v.client.Engine() || !slices.Contains(v.config.Vault.KeyNames, id.Key) {
		return nil, &Failure{Verdict: Unknown, Reason: fmt.Sprintf("the configuration does not list the key %s of engine %s; add it to keynames, or use the configuration for that engine", id.Key, id.Engine)}
	}
	version, ok := vault.CiphertextVersion(w.Ciphertext)
	if !ok {
		return nil, &Failure{Verdict: Lost, Reason: "the wrapped seed is not a transit ciphertext"}
	}
	if version != id.Version {
		return nil, &Failure{Verdict: Lost, Reason: fmt.Sprintf("the seed was wrapped by key version %d, but its key_id names version %d", version, id.Version)}
	}
	data, err := upstream.BindingOf(&v.config.Vault).Of(w.Annotations)
	if err != nil {
		return nil, failureOf(err)
	}
	plaintext, err := v.client.Decrypt(ctx, id.Key, w.Ciphertext, data)
	if err != nil {
		return nil, failureOf(err)
	}
	return plaintext, nil
}

// failureOf turns an error of Vault's client into what it means for a seed.
func failureOf(err error) error {
	class := fault.ClassOf(err)
	switch class {
	case fault.KeyLost, fault.VersionTooOld, fault.Invalid:
		return &Failure{Verdict: Lost, Reason: err.Error()}
	}
	return &Failure{Verdict: Unknown, Reason: err.Error(), Passing: class.Transient()}
}

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

// Vault unwraps seeds as Trousseau would, with a configuration of its. All that
// it needs of Vault is "update" on <mount>/decrypt/<key>: it encrypts nothing. It
// must be closed.
type Vault struct {
	config *config.Config
	client *vault.Client
}

// DialVault logs in to the Vault that cfg names.
func DialVault(ctx context.Context, cfg *config.Config) (*Vault, error) {
	client, err := vault.Dial(upstream.Config(&cfg.Vault))
	if err != nil {
		return nil, err
	}
	err = askAround(client, func() error {
		_, err := client.Login(ctx)
		return err
	})
	// Where there is nothing to log in with, it shows only now who is there. A
	// policy may deny the question, and yet allow to decrypt.
	if err == nil && !client.Mints() && !client.Proxied() {
		err = askAround(client, func() error {
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

// askAround asks again where Vault could not be used: the client goes on to the
// next node by itself.
func askAround(client *vault.Client, ask func() error) (err error) {
	for range max(2, client.Nodes()) {
		if err = ask(); !fault.ClassOf(err).Transient() {
			return err
		}
	}
	return err
}

// Close ends the life of a token that was made for this, and the connections.
func (v *Vault) Close(ctx context.Context) {
	_ = v.client.Revoke(ctx)
	v.client.Close()
}

// Unwrap refuses what Trousseau refuses, and has Vault decrypt the rest.
func (v *Vault) Unwrap(ctx context.Context, w seed.Wrapped) ([]byte, error) {
	id, err := keyid.Parse(w.KeyID)
	if err != nil {
		return nil, &Failure{Verdict: Unknown, Reason: "its key_id is not one of Trousseau's: it takes the plugin that made it to unwrap it, use --plugin"}
	}
	if id.Engine != v.client.Engine() || !slices.Contains(v.config.Vault.KeyNames, id.Key) {
		return nil, &Failure{Verdict: Unknown, Reason: fmt.Sprintf("the configuration does not name the key %s of %s: add it to keynames, or use that Vault's configuration", id.Key, id.Engine)}
	}
	version, ok := vault.CiphertextVersion(w.Ciphertext)
	if !ok {
		return nil, &Failure{Verdict: Lost, Reason: "the wrapped seed is not a ciphertext of transit's"}
	}
	if version != id.Version {
		return nil, &Failure{Verdict: Lost, Reason: fmt.Sprintf("the seed was wrapped by key version %d, its key_id names version %d", version, id.Version)}
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

// failureOf says what Vault's refusal means for a seed.
func failureOf(err error) error {
	class := fault.ClassOf(err)
	switch class {
	case fault.KeyLost, fault.VersionTooOld, fault.Invalid:
		return &Failure{Verdict: Lost, Reason: err.Error()}
	}
	return &Failure{Verdict: Unknown, Reason: err.Error(), Passing: class.Transient()}
}

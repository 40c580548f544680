// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

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
	nodes  []*vault.Client
	// turn only grows, so a late failure cannot skip the node that is asked now.
	turn atomic.Uint64
}

// DialVault connects and logs in to the Vault of cfg, within ctx.
func DialVault(ctx context.Context, cfg *config.Config) (*Vault, error) {
	nodes, err := vault.Dial(upstream.Config(&cfg.Vault))
	if err != nil {
		return nil, err
	}
	v := &Vault{config: cfg, nodes: nodes}
	err = v.ask(func(node *vault.Client) error {
		_, err := node.Login(ctx)
		return err
	})
	// Without a login, this is the first call: it shows whether Vault is usable. A
	// policy may deny it and still allow to decrypt.
	if err == nil && !nodes[0].Mints() && !nodes[0].Proxied() {
		err = v.ask(func(node *vault.Client) error {
			if _, err := node.LookupSelf(ctx); fault.ClassOf(err).Transient() {
				return err
			}
			return nil
		})
	}
	if err != nil {
		nodes[0].Close()
		return nil, err
	}
	return v, nil
}

// ask calls each node in turn until one accepts the call. A single node is called
// twice if it could not be used.
func (v *Vault) ask(call func(*vault.Client) error) (err error) {
	for range max(2, len(v.nodes)) {
		turn := v.turn.Load()
		err = call(v.node(turn))
		if err == nil || len(v.nodes) == 1 && !fault.ClassOf(err).Transient() {
			return err
		}
		v.turn.CompareAndSwap(turn, turn+1)
	}
	return err
}

func (v *Vault) node(turn uint64) *vault.Client { return v.nodes[turn%uint64(len(v.nodes))] }

// Close revokes the token of the login, if there was one, and closes the
// connections.
func (v *Vault) Close(ctx context.Context) {
	_ = v.ask(func(node *vault.Client) error { return node.Revoke(ctx) })
	v.nodes[0].Close()
}

// Unwrap refuses the seeds that Trousseau refuses, and asks Vault to decrypt the
// others. Its errors are [*Failure]s.
func (v *Vault) Unwrap(ctx context.Context, w seed.Wrapped) ([]byte, error) {
	version, ok := vault.CiphertextVersion(w.Ciphertext)
	id, err := keyid.Parse(w.KeyID)
	if err != nil {
		if !ok {
			return nil, &Failure{Verdict: Unknown, Reason: "neither its key_id nor the wrapped key is one that Vault's transit engine knows; use --plugin with the plugin that wrapped it"}
		}
		return v.unwrapForeign(ctx, w)
	}
	if id.Engine != v.nodes[0].Engine() || !slices.Contains(v.config.Vault.KeyNames, id.Key) {
		return nil, &Failure{Verdict: Unknown, Reason: fmt.Sprintf("the configuration does not list the key %s of engine %s; add it to keynames, or use the configuration for that engine", id.Key, id.Engine)}
	}
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
	plaintext, failed := v.decrypt(ctx, id.Key, w.Ciphertext, data)
	if failed != nil {
		return nil, failed
	}
	return plaintext, nil
}

// unwrapForeign unwraps what KMS v1 or another plugin wrapped with a transit key. Which
// key is not recorded, so each of the configuration is tried. That none fits proves
// nothing.
func (v *Vault) unwrapForeign(ctx context.Context, w seed.Wrapped) ([]byte, error) {
	var last *Failure
	for _, key := range v.config.Vault.KeyNames {
		plaintext, failed := v.decrypt(ctx, key, w.Ciphertext, nil)
		if failed == nil {
			return plaintext, nil
		}
		if last == nil || !last.Passing {
			last = failed
		}
	}
	return nil, &Failure{Verdict: Unknown, Passing: last.Passing,
		Reason: "KMS v1 and other plugins do not record their transit key, and none of keynames decrypts it: " + last.Reason}
}

// decrypt asks the nodes. A node may be another Vault's: a seed is lost only if all say
// so.
func (v *Vault) decrypt(ctx context.Context, key string, ciphertext, data []byte) (plaintext []byte, failed *Failure) {
	for range v.nodes {
		turn := v.turn.Load()
		plaintext, err := v.node(turn).Decrypt(ctx, key, ciphertext, data)
		if err == nil {
			return plaintext, nil
		}
		if f := failureOf(err); failed == nil || f.Verdict != Lost {
			failed = f
		}
		v.turn.CompareAndSwap(turn, turn+1)
	}
	return nil, failed
}

// failureOf turns an error of Vault's client into what it means for a seed.
func failureOf(err error) *Failure {
	class := fault.ClassOf(err)
	switch class {
	case fault.KeyLost, fault.KeyUnusable, fault.VersionTooOld, fault.Invalid:
		return &Failure{Verdict: Lost, Reason: err.Error()}
	}
	return &Failure{Verdict: Unknown, Reason: err.Error(), Passing: class.Transient()}
}

// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"crypto/rand"
	"slices"

	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/upstream"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Generation is everything that one version of the configuration means at one
// version of its key. It is immutable once adopted and safe for concurrent use.
type Generation struct {
	// Number counts adoptions in this process, from 1.
	Number uint64
	// Digest identifies the configuration's bytes.
	Digest string
	// ID names the key version that encrypts; KeyID is its text.
	ID    keyid.ID
	KeyID string

	config  *config.Config
	client  *vault.Client
	keys    []string // may decrypt; the first one encrypts
	binding upstream.Binding
	canary  canary
}

// proveNewest proves the newest version of cfg's first key and returns the
// generation for it. It makes three calls: read the key, encrypt, decrypt.
func proveNewest(ctx context.Context, client *vault.Client, cfg *config.Config) (*Generation, error) {
	keys, binding := cfg.Vault.KeyNames, upstream.BindingOf(&cfg.Vault)
	key, err := readKey(ctx, client, keys[0], binding.Data)
	if err != nil {
		return nil, err
	}
	c, version, err := newCanary(ctx, client, keys[0], key.Latest, binding.Data)
	if err != nil {
		return nil, err
	}
	id := keyid.ID{Engine: client.Engine(), Key: keys[0], Version: version}
	if created := key.Created[version]; !created.IsZero() {
		id.Created = created.Unix()
	}
	return &Generation{
		ID: id, KeyID: id.String(),
		config: cfg, client: client, keys: keys, binding: binding, canary: c,
	}, nil
}

// inherit keeps a creation time that the previous token could read and this one
// cannot. The canary has proven that the key is the same, and a key_id that
// changes with the token would re-encrypt everything for nothing.
func (g *Generation) inherit(active *Generation) {
	if active == nil || g.ID.Created != 0 || g.ID.Key != active.ID.Key || g.ID.Version != active.ID.Version {
		return
	}
	g.ID.Created = active.ID.Created
	g.KeyID = g.ID.String()
}

// fields describe the generation in the log.
func (g *Generation) fields() []zap.Field {
	return []zap.Field{
		zap.Uint64("generation", g.Number),
		zap.String("vault", g.client.Address()),
		zap.String("key_id", g.KeyID),
		zap.String("key_id_hash", keyid.Hash(g.KeyID)),
	}
}

// encrypt wraps plaintext under the generation's pinned key version, so that
// the key_id returned with it is the one that Status announced.
func (g *Generation) encrypt(ctx context.Context, plaintext []byte) (seed.Wrapped, error) {
	ciphertext, _, err := g.client.Encrypt(ctx, g.ID.Key, g.ID.Version, plaintext, g.binding.Data)
	if err != nil {
		return seed.Wrapped{}, err
	}
	return seed.Wrapped{KeyID: g.KeyID, Ciphertext: ciphertext, Annotations: g.binding.Annotations()}, nil
}

// decrypt unwraps what this or an earlier key version wrapped. It refuses what
// Vault can never decrypt for us without a Vault call.
func (g *Generation) decrypt(ctx context.Context, w seed.Wrapped) ([]byte, error) {
	id, err := keyid.Parse(w.KeyID)
	if err != nil {
		return nil, fault.Errorf(fault.Invalid, "decrypting: the %w", err)
	}
	if id.Engine != g.ID.Engine || !slices.Contains(g.keys, id.Key) {
		return nil, fault.Errorf(fault.Invalid, "decrypting: key_id %s names a key that keynames does not list; it may belong to another plugin", keyid.Hash(w.KeyID))
	}
	version, ok := vault.CiphertextVersion(w.Ciphertext)
	if !ok {
		return nil, fault.Errorf(fault.Invalid, "decrypting: the ciphertext is not a transit ciphertext")
	}
	if version != id.Version {
		return nil, fault.Errorf(fault.Invalid, "decrypting: the ciphertext was made by key version %d, its key_id names version %d", version, id.Version)
	}
	data, err := g.binding.Of(w.Annotations)
	if err != nil {
		return nil, err
	}
	return g.client.Decrypt(ctx, id.Key, w.Ciphertext, data)
}

// canary is a random plaintext and its ciphertext under one key version. A client
// that can decrypt it holds the same key version.
type canary struct {
	plaintext  []byte
	ciphertext []byte
	data       []byte // that ciphertext is bound to
}

// newCanary proves a key version, the newest if version is 0, by a round trip.
func newCanary(ctx context.Context, client *vault.Client, key string, version int, data []byte) (canary, int, error) {
	c := canary{plaintext: make([]byte, 32), data: data}
	rand.Read(c.plaintext)
	ciphertext, version, err := client.Encrypt(ctx, key, version, c.plaintext, data)
	if err != nil {
		return canary{}, 0, err
	}
	c.ciphertext = ciphertext
	return c, version, c.check(ctx, client, key)
}

// check decrypts the canary with client.
func (c canary) check(ctx context.Context, client *vault.Client, key string) error {
	plaintext, err := client.Decrypt(ctx, key, c.ciphertext, c.data)
	if err != nil {
		return err
	}
	if !bytes.Equal(plaintext, c.plaintext) {
		return fault.Errorf(fault.Invalid, "decrypting with %s/%s at %s: the result is not what was encrypted", client.Engine(), key, client.Address())
	}
	return nil
}

// readKey asks Vault for a key's versions. It returns the zero Key if policy
// denies that: then the version comes from a ciphertext, and the creation time
// is unknown.
func readKey(ctx context.Context, client *vault.Client, name string, data []byte) (vault.Key, error) {
	key, err := client.ReadKey(ctx, name)
	if fault.ClassOf(err) != fault.Denied {
		return key, err
	}
	// The token may be at fault: an API proxy has none before its first login. If
	// the token can encrypt, it is the policy.
	if _, _, err := newCanary(ctx, client, name, 0, data); err != nil {
		return vault.Key{}, err
	}
	key, err = client.ReadKey(ctx, name)
	if fault.ClassOf(err) == fault.Denied {
		return vault.Key{}, nil
	}
	return key, err
}

// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"crypto/rand"
	"regexp"
	"slices"
	"strings"

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

	config   *config.Config
	cluster  *cluster
	keys     []string // may decrypt; the first one encrypts
	binding  upstream.Binding
	canary   canary
	readable bool // policy allows reading the key
}

// proveNewest proves the newest version of cfg's first key at n and returns the
// generation for it. It makes three calls: encrypt, decrypt, read the key. The
// last may be denied: then the version is the ciphertext's, and its creation time
// is unknown. If the key is expected to be readable, a denial is asked for twice:
// an API proxy has no token before its first login.
func proveNewest(ctx context.Context, c *cluster, n *node, cfg *config.Config, readable bool) (*Generation, error) {
	name, binding := cfg.Vault.KeyNames[0], upstream.BindingOf(&cfg.Vault)
	proof, version, err := newCanary(ctx, n, name, 0, binding.Data)
	if err != nil {
		return nil, err
	}
	key, err := n.ReadKey(ctx, name)
	if fault.ClassOf(err) == fault.Denied && readable {
		key, err = n.ReadKey(ctx, name)
	}
	switch {
	case fault.ClassOf(err) == fault.Denied:
	case err != nil:
		// Whatever the reason is, the key is there.
		return nil, fault.Errorf(fault.Unavailable, "%w", err)
	case key.Latest < version:
		// Another server of this address has encrypted; this one lags behind.
		if proof, version, err = newCanary(ctx, n, name, key.Latest, binding.Data); err != nil {
			return nil, err
		}
	}
	id := keyid.ID{Engine: n.Engine(), Key: name, Version: version}
	if created := key.Created[version]; !created.IsZero() {
		id.Created = created.Unix()
	}
	return &Generation{
		ID: id, KeyID: id.String(), config: cfg, cluster: c, keys: cfg.Vault.KeyNames,
		binding: binding, canary: proof, readable: err == nil,
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
		zap.String("vault", g.cluster.serving.Load().Address()),
		zap.String("key_id", g.KeyID),
		zap.String("key_id_hash", keyid.Hash(g.KeyID)),
	}
}

// encrypt wraps plaintext under the generation's pinned key version, so that
// the key_id returned with it is the one that Status announced.
func (g *Generation) encrypt(ctx context.Context, n *node, plaintext []byte) (seed.Wrapped, error) {
	ciphertext, err := n.encrypt[g.ID.Key].Do(ctx, vault.Item{Data: plaintext, Version: g.ID.Version, AssociatedData: g.binding.Data})
	if err != nil {
		return seed.Wrapped{}, err
	}
	return seed.Wrapped{KeyID: g.KeyID, Ciphertext: ciphertext, Annotations: g.binding.Annotations()}, nil
}

// bareKeyID is the form of key_id in other plugins for Vault: the version that was
// the newest just after the encryption, or a time. It names no key.
var bareKeyID = regexp.MustCompile(`^[0-9]{1,19}$`)

// decrypt unwraps what this or an earlier key version wrapped. It refuses what
// Vault can never decrypt for us without a Vault call.
func (g *Generation) decrypt(ctx context.Context, n *node, w seed.Wrapped) ([]byte, error) {
	bare := bareKeyID.MatchString(w.KeyID) && len(w.Annotations) == 0
	if w.KeyID == "" || bare && g.config.Vault.AcceptBareKeyIDs {
		return g.decryptUnnamed(ctx, n, w)
	}
	id, err := keyid.Parse(w.KeyID)
	switch {
	case bare:
		return nil, fault.Errorf(fault.Invalid, "decrypting: the key_id is only a number, so another plugin encrypted this; if it used a key in keynames, set acceptBareKeyIDs in config.yaml")
	case err != nil:
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
	return n.decrypt[id.Key].Do(ctx, vault.Item{Data: w.Ciphertext, AssociatedData: data})
}

// decryptUnnamed unwraps a seed whose key is not recorded: one with a bare key_id, or
// of KMS v1, which has no key_id. Each key is asked in turn, because transit
// authenticates the ciphertext. What a key says of a seed that another one may have
// wrapped is no news of that key: the error never has the class [fault.KeyLost].
func (g *Generation) decryptUnnamed(ctx context.Context, n *node, w seed.Wrapped) ([]byte, error) {
	if _, ok := vault.CiphertextVersion(w.Ciphertext); !ok {
		return nil, fault.Errorf(fault.Invalid, "decrypting: the ciphertext is not a transit ciphertext")
	}
	data, err := g.binding.Of(w.Annotations)
	if err != nil {
		return nil, err
	}
	class, refusals := fault.Invalid, []string(nil)
	for _, key := range g.keys {
		plaintext, err := n.decrypt[key].Do(ctx, vault.Item{Data: w.Ciphertext, AssociatedData: data})
		switch c := fault.ClassOf(err); c {
		case fault.Invalid, fault.KeyLost, fault.KeyUnusable:
		case fault.VersionTooOld, fault.VersionTooNew:
			// A node that lags behind may be the reason, so that outweighs the others.
			if class != fault.VersionTooNew {
				class = c
			}
		default:
			return plaintext, err
		}
		refusals = append(refusals, err.Error())
	}
	return nil, fault.Errorf(class, "no key in keynames decrypts what another plugin encrypted; list the key that it used: %s", strings.Join(refusals, "; "))
}

// heldBy reports whether n holds the key that encrypts for g: it decrypts the
// canary there. Any answer about the key that is not the plaintext means that g's
// ciphertexts cannot be read there: the error has the class [fault.KeyLost].
func (g *Generation) heldBy(ctx context.Context, n *node) error {
	err := g.canary.check(ctx, n, g.ID.Key)
	switch fault.ClassOf(err) {
	case fault.Invalid, fault.KeyLost, fault.KeyUnusable, fault.VersionTooOld:
		return fault.Errorf(fault.KeyLost, "key %s no longer decrypts what it encrypted: check whether it was deleted or recreated, or its min_decryption_version raised: %w", g.KeyID, err)
	}
	return err
}

// canary is a random plaintext and its ciphertext under one key version. A node
// that can decrypt it holds the same key version.
type canary struct {
	plaintext  []byte
	ciphertext []byte
	data       []byte // that ciphertext is bound to
}

// newCanary proves a key version, the newest if version is 0, by a round trip.
func newCanary(ctx context.Context, n *node, key string, version int, data []byte) (canary, int, error) {
	c := canary{plaintext: make([]byte, 32), data: data}
	rand.Read(c.plaintext)
	ciphertext, version, err := n.Encrypt(ctx, key, version, c.plaintext, data)
	if err != nil {
		return canary{}, 0, err
	}
	c.ciphertext = ciphertext
	return c, version, c.check(ctx, n, key)
}

// check decrypts the canary at n.
func (c canary) check(ctx context.Context, n *node, key string) error {
	plaintext, err := n.Decrypt(ctx, key, c.ciphertext, c.data)
	if err != nil {
		return err
	}
	if !bytes.Equal(plaintext, c.plaintext) {
		return fault.Errorf(fault.Invalid, "decrypting with %s/%s at %s: the result is not what was encrypted", n.Engine(), key, n.Address())
	}
	return nil
}

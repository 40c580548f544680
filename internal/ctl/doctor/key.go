// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultview"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// old is the age from which a key version should have a successor.
const old = 365 * day

const day = 24 * time.Hour

// keys checks each key, and encrypts and decrypts at each address.
func (e *examination) keys(ctx context.Context) {
	v := e.config.Vault
	e.readable = map[string]*vaultview.Key{}
	for i, name := range v.KeyNames {
		e.check(ctx, "key", name, func(ctx context.Context) (o outcome) {
			e.readable[name], o = e.key(ctx, name)
			return o
		}, "token")
		look := func(judge func(k *vaultview.Key) outcome) func(context.Context) outcome {
			return func(context.Context) outcome {
				if e.readable[name] == nil {
					return skip("the token may not read the key")
				}
				return judge(e.readable[name])
			}
		}
		path := v.TransitPath + "/keys/" + name
		e.check(ctx, "key-settings", name, look(func(k *vaultview.Key) outcome { return settings(k, path) }), ground("key", name))
		e.check(ctx, "key-versions", name, look(func(k *vaultview.Key) outcome { return versions(k, path, i == 0) }), ground("key", name))
	}
	active := v.KeyNames[0]
	for _, view := range e.views {
		address := view.Address()
		e.check(ctx, "round-trip", address, func(ctx context.Context) outcome { return e.roundTrip(ctx, view, active) }, ground("token", address), ground("key", active),
			ground("policy-needs", v.TransitPath+"/encrypt/"+active), ground("policy-needs", v.TransitPath+"/decrypt/"+active))
		e.check(ctx, "batches", address, func(ctx context.Context) outcome { return e.batches(ctx, view, active) }, ground("round-trip", address))
	}
}

// keyTypes are the types that can encrypt seeds, with associated data too: those of
// Vault and, with xchacha20-poly1305, of OpenBao.
var keyTypes = []string{"aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305", "managed_key"}

func (e *examination) create(name string) string {
	return "Check keynames, transitPath and namespace. Create the key with vault write -f " + e.config.Vault.TransitPath + "/keys/" + name +
		", but not if a key of this name has encrypted data: restore that key."
}

// key reads a key. It returns nil if the token may not.
func (e *examination) key(ctx context.Context, name string) (*vaultview.Key, outcome) {
	path := e.config.Vault.TransitPath + "/keys/" + name
	allow := "Let its policy read " + path + "."
	k, err := e.vault.KeyDetails(ctx, name)
	switch fault.ClassOf(err) {
	case "":
	case fault.Denied:
		exists, err := e.vault.KeyExists(ctx, name)
		switch {
		case err != nil:
			return nil, warn(allow, "the token may not read it: whether it exists is unknown")
		case !exists:
			return nil, fail(e.create(name), "it does not exist: Vault has no key to decrypt with")
		}
		return nil, warn(allow, "it exists, but the token may not read it: its settings are unknown")
	case fault.KeyLost:
		return nil, fail(e.create(name), "%v", err)
	default:
		return nil, fail("Check transitPath and namespace, and read Vault's log.", "%v", err)
	}
	switch {
	case !slices.Contains(keyTypes, k.Type):
		return nil, fail("Create a key of type aes256-gcm96, and list it in keynames.", "a key of type %s is not for seeds", k.Type)
	case k.Derived:
		return nil, fail("Create a key with derived=false, and list it in keynames.", "it is a derived key: each call would need a context, which trousseau does not send")
	}
	return &k, ok("type %s, version %d", k.Type, k.Latest)
}

// settings judges what would let a key leave Vault or be deleted.
func settings(k *vaultview.Key, path string) outcome {
	var seen, fix []string
	if k.Exportable {
		seen = append(seen, "exportable: anyone who may read export/ can take the key")
	}
	if k.AllowPlaintextBackup {
		seen = append(seen, "allow_plaintext_backup: anyone who may read backup/ can take the key")
	}
	if len(seen) > 0 {
		fix = append(fix, "This cannot be undone: create another key, put it first in keynames, and re-encrypt everything.")
	}
	if k.DeletionAllowed {
		seen = append(seen, "deletion_allowed: if the key is deleted, everything it encrypted is lost")
		fix = append(fix, "Forbid it: vault write "+path+"/config deletion_allowed=false")
	}
	if len(seen) > 0 {
		return warn(strings.Join(fix, " "), "%s", strings.Join(seen, "; "))
	}
	return ok("not exportable, no plaintext backup, deletion not allowed")
}

// versions judges which versions may be used, and the age of the latest if the key
// encrypts.
func versions(k *vaultview.Key, path string, encrypts bool) outcome {
	if k.MinEncryption > k.Latest {
		return fail("Reset it: vault write "+path+"/config min_encryption_version=0", "min_encryption_version is %d, but the latest version is %d", k.MinEncryption, k.Latest)
	}
	if k.MinDecryption > 1 {
		return warn("Check with trousseauctl audit that nothing in etcd needs an older version. If something does: vault write "+path+"/config min_decryption_version=1",
			"min_decryption_version is %d: data encrypted by older versions cannot be read", k.MinDecryption)
	}
	rotation := "no automatic rotation"
	if k.AutoRotatePeriod > 0 {
		rotation = "rotated automatically every " + text.Span(k.AutoRotatePeriod.Duration())
	}
	created := k.Created()
	if created.IsZero() {
		return ok("version %d, %s", k.Latest, rotation)
	}
	age := time.Since(created)
	if age > old && encrypts {
		return warn("Rotate it: vault write -f "+path+"/rotate, or set auto_rotate_period.", "version %d is %s old, %s", k.Latest, text.Span(age), rotation)
	}
	return ok("version %d is %s old, %s", k.Latest, text.Span(age), rotation)
}

// roundTrip encrypts and decrypts at an address, through the daemon's client, and asks
// whether the other keys decrypt. It encrypts only with a key that exists there: where
// the policy allows to create, Vault would create it.
func (e *examination) roundTrip(ctx context.Context, v *vaultview.View, name string) outcome {
	const fix = "Correct what the error names, and read Vault's log."
	switch exists, err := v.KeyExists(ctx, name); {
	case err != nil:
		return fail(fix, "not encrypted, because that could create the key: %v", err)
	case !exists:
		return fail(e.create(name), "not encrypted, because the key %s does not exist there", name)
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails
	data := []byte(e.config.Vault.AssociatedData)
	began := time.Now()
	wrapped, _, err := v.Encrypt(ctx, name, 0, seed, data)
	encrypted := time.Since(began)
	if err != nil {
		return fail(fix, "%v", err)
	}
	plain, err := v.Decrypt(ctx, name, wrapped, data)
	decrypted := time.Since(began) - encrypted
	switch {
	case err != nil:
		return fail(fix, "%v", err)
	case !bytes.Equal(plain, seed):
		return fail("Check what is between this host and Vault.", "decrypting gave other bytes than were encrypted")
	}
	for _, other := range e.config.Vault.KeyNames[1:] {
		if e.blame([]string{ground("key", other), ground("policy-needs", e.config.Vault.TransitPath+"/decrypt/"+other)}) != "" {
			continue
		}
		if err := v.MayDecrypt(ctx, other); err != nil {
			return fail(fix, "%v", err)
		}
	}
	if slow := max(encrypted, decrypted); slow > e.RequestTimeout/2 {
		return warn("Check the network to Vault and Vault's load.", "one call took %s of the %s that --request-timeout allows", slow.Round(time.Millisecond), e.RequestTimeout)
	}
	return ok("encrypted in %s, decrypted in %s", encrypted.Round(100*time.Microsecond), decrypted.Round(100*time.Microsecond))
}

// batches encrypts and decrypts two seeds in one call each, as the daemon does under
// load.
func (e *examination) batches(ctx context.Context, v *vaultview.View, name string) outcome {
	items, seeds := make([]vault.Item, 2), make([][]byte, 2)
	for i := range items {
		seeds[i] = make([]byte, 32)
		_, _ = rand.Read(seeds[i]) // never fails
		items[i] = vault.Item{Data: seeds[i], AssociatedData: []byte(e.config.Vault.AssociatedData)}
	}
	for _, call := range []func(context.Context, string, []vault.Item) ([]vault.Outcome, error){v.EncryptBatch, v.DecryptBatch} {
		outcomes, err := call(ctx, name, items)
		var refused *vault.BatchRefused
		if errors.As(err, &refused) {
			return warn("Allow the parameter batch_input in every policy of the token, and bodies of 1 MiB in what is before Vault.",
				"single calls are allowed, batches are not: under load, requests go to Vault one by one: %v", err)
		}
		for i, o := range outcomes {
			err = errors.Join(err, o.Err)
			items[i].Data = o.Data
		}
		if err != nil {
			return fail("Correct what the error names, and read Vault's log.", "%v", err)
		}
	}
	if !bytes.Equal(items[0].Data, seeds[0]) || !bytes.Equal(items[1].Data, seeds[1]) {
		return fail("Check what is between this host and Vault.", "decrypting gave other bytes than were encrypted")
	}
	return ok("Vault takes several requests in one call")
}

// SPDX-License-Identifier: Apache-2.0

package drill_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

const key = "kms"

func newVault(t *testing.T) *vaulttest.Server {
	t.Helper()
	v, err := vaulttest.New(vaulttest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// dial connects with a configuration that names the key, with additional lines.
func dial(t *testing.T, v *vaulttest.Server, more ...string) (*drill.Vault, error) {
	t.Helper()
	text := fmt.Sprintf("provider: vault\nvault:\n  keynames: [%s]\n  address: %s\n", key, v.URL())
	if len(more) == 0 || !strings.HasPrefix(more[0], "roleID") {
		text += "  token: " + v.KMSToken(key) + "\n"
	}
	for _, line := range more {
		text += "  " + line + "\n"
	}
	cfg, err := config.Parse([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := drill.DialVault(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { d.Close(context.Background()) })
	}
	return d, err
}

// wrap encrypts a seed with Vault, as Trousseau would.
func wrap(t *testing.T, v *vaulttest.Server, key, data string) seed.Wrapped {
	t.Helper()
	w := wrapped(t, v, key, []byte("0123456789abcdef0123456789abcdef"), data)
	if data != "" {
		w.Annotations = map[string][]byte{"associated-data.trousseau.io": []byte("v1")}
	}
	return w
}

func wrapped(t *testing.T, v *vaulttest.Server, key string, plaintext []byte, data string) seed.Wrapped {
	t.Helper()
	nodes, err := vault.Dial(vault.Config{Addresses: []string{v.URL()}, Mount: "transit", Credential: vault.Given(v.KMSToken(key))})
	if err != nil {
		t.Fatal(err)
	}
	client := nodes[0]
	defer client.Close()
	ciphertext, version, err := client.Encrypt(t.Context(), key, 0, plaintext, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return seed.Wrapped{KeyID: fmt.Sprintf("transit/%s/v%d", key, version), Ciphertext: ciphertext}
}

func TestVaultUnwraps(t *testing.T) {
	v := newVault(t)
	k := v.CreateKey(key)
	first := wrap(t, v, key, "")
	k.Rotate()
	second := wrap(t, v, key, "cluster-1")
	d, err := dial(t, v, "associatedData: cluster-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []seed.Wrapped{first, second} {
		if plaintext, err := d.Unwrap(t.Context(), w); err != nil || len(plaintext) != 32 {
			t.Errorf("%s: got %d bytes, %v, want the seed", w.KeyID, len(plaintext), err)
		}
	}
}

// What KMS v1 or another plugin wrapped is tried with each key of the configuration.
func TestVaultUnwrapsWhatOthersWrapped(t *testing.T) {
	v := newVault(t)
	v.CreateKey(key)
	v.CreateKey("another")
	cfg, err := config.Parse(fmt.Appendf(nil, "provider: vault\nvault:\n  keynames: [%s, another]\n  address: %s\n  token: %s\n",
		key, v.URL(), v.KMSToken(key, "another")), nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := drill.DialVault(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(t.Context())
	var seeds []drill.Seed
	for _, keyID := range []string{"", "1", "another"} {
		w := wrap(t, v, "another", "")
		w.KeyID = keyID
		seeds = append(seeds, drill.Seed{Wrapped: w, DEK: true, Foreign: true})
	}
	// A plugin may encode the DEK before Vault encrypts it.
	seeds = append(seeds, drill.Seed{Wrapped: wrapped(t, v, "another", []byte("MDEyMzQ1Njc4OWFiY2RlZg=="), ""), DEK: true, Foreign: true})
	seeds[3].KeyID = ""
	results, err := drill.Run(t.Context(), drill.Options{Unwrapper: d}, seeds)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Verdict != drill.Readable {
			t.Errorf("seed %d: %+v, want it readable", i, r)
		}
	}
}

// The drill's verdict on a seed matches what Trousseau would do.
func TestVaultRefuses(t *testing.T) {
	tests := map[string]struct {
		change  func(v *vaulttest.Server, k *vaulttest.Key, w *seed.Wrapped)
		more    []string
		verdict drill.Verdict
		want    string
	}{
		"min_decryption_version": {func(_ *vaulttest.Server, k *vaulttest.Key, _ *seed.Wrapped) { k.Rotate(); k.SetMinDecryptionVersion(2) }, nil, drill.Lost, "min_decryption_version"},
		"key deleted":            {func(_ *vaulttest.Server, k *vaulttest.Key, _ *seed.Wrapped) { k.Delete() }, nil, drill.Lost, ""},
		"key recreated":          {func(v *vaulttest.Server, k *vaulttest.Key, _ *seed.Wrapped) { k.Delete(); v.CreateKey(key) }, nil, drill.Lost, ""},
		"another ciphertext":     {func(_ *vaulttest.Server, _ *vaulttest.Key, w *seed.Wrapped) { w.Ciphertext = []byte("AQIDBA==") }, nil, drill.Lost, "not a transit ciphertext"},
		"another version":        {func(_ *vaulttest.Server, _ *vaulttest.Key, w *seed.Wrapped) { w.KeyID = "transit/kms/v3" }, nil, drill.Lost, "wrapped by key version 1, but its key_id names version 3"},
		"another plugin's": {func(_ *vaulttest.Server, _ *vaulttest.Key, w *seed.Wrapped) {
			w.KeyID, w.Ciphertext = "arn:aws:kms", []byte("AQIDBA==")
		}, nil, drill.Unknown, "use --plugin with the plugin that wrapped it"},
		"of KMS v1, too old": {func(_ *vaulttest.Server, k *vaulttest.Key, w *seed.Wrapped) {
			w.KeyID = ""
			k.Rotate()
			k.SetMinDecryptionVersion(2)
		}, nil, drill.Unknown, "none of keynames decrypts it: decrypting with transit/kms"},
		"of KMS v1, the key is another one": {func(v *vaulttest.Server, k *vaulttest.Key, w *seed.Wrapped) {
			w.KeyID = ""
			k.Delete()
			v.CreateKey(key)
		}, nil, drill.Unknown, "none of keynames decrypts it"},
		"of KMS v1, sealed": {func(v *vaulttest.Server, _ *vaulttest.Key, w *seed.Wrapped) { w.KeyID = ""; v.Seal() }, nil, drill.Unknown, "sealed"},
		"another key":       {func(_ *vaulttest.Server, _ *vaulttest.Key, w *seed.Wrapped) { w.KeyID = "transit/other/v1" }, nil, drill.Unknown, "does not list the key other of engine transit; add it to keynames"},
		"another engine":    {func(_ *vaulttest.Server, _ *vaulttest.Key, w *seed.Wrapped) { w.KeyID = "eu/transit/kms/v1" }, nil, drill.Unknown, "does not list the key kms of engine eu/transit"},
		"bound": {func(_ *vaulttest.Server, _ *vaulttest.Key, w *seed.Wrapped) {
			w.Annotations = map[string][]byte{"associated-data.trousseau.io": nil}
		}, nil, drill.Lost, "associatedData is not set"},
		"not bound": {func(*vaulttest.Server, *vaulttest.Key, *seed.Wrapped) {}, []string{"associatedData: x", "requireAssociatedData: true"}, drill.Lost, "this seed is not bound to associated data"},
		"sealed":    {func(v *vaulttest.Server, _ *vaulttest.Key, _ *seed.Wrapped) { v.Seal() }, nil, drill.Unknown, "sealed"},
		"denied": {func(v *vaulttest.Server, _ *vaulttest.Key, _ *seed.Wrapped) {
			v.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpDecrypt), Status: http.StatusForbidden})
		}, nil, drill.Unknown, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			k := v.CreateKey(key)
			w := wrap(t, v, key, "")
			d, err := dial(t, v, test.more...)
			if err != nil {
				t.Fatal(err)
			}
			test.change(v, k, &w)
			_, err = d.Unwrap(t.Context(), w)
			var failure *drill.Failure
			if !errors.As(err, &failure) || failure.Verdict != test.verdict || !strings.Contains(failure.Reason, test.want) {
				t.Errorf("got %#v, want it %s, with %q", err, test.verdict, test.want)
			}
		})
	}
}

// An address that is another Vault's, with a key of the same name, loses no seed.
func TestVaultWithAWrongNode(t *testing.T) {
	v, other := newVault(t), newVault(t)
	v.CreateKey(key)
	other.CreateKey(key)
	w := wrap(t, v, key, "")
	for _, addresses := range [][2]string{{v.URL(), other.URL()}, {other.URL(), v.URL()}} {
		cfg, err := config.Parse(fmt.Appendf(nil, "provider: vault\nvault:\n  keynames: [%s]\n  address: %s\n  addresses: [%s]\n  token: %s\n",
			key, addresses[0], addresses[1], v.KMSToken(key)), nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := drill.DialVault(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close(t.Context())
		for range 2 {
			if _, err := d.Unwrap(t.Context(), w); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestVaultAway(t *testing.T) {
	v := newVault(t)
	v.CreateKey(key)
	v.Stop()
	if _, err := dial(t, v); err == nil || !strings.Contains(err.Error(), v.URL()) {
		t.Errorf("got %v, want that Vault is not there", err)
	}
}

// A token created for the drill is revoked at its end, and needs no right except to
// decrypt.
func TestVaultLogsInAndOut(t *testing.T) {
	v := newVault(t)
	v.CreateKey(key)
	w := wrap(t, v, key, "")
	role := v.EnableAppRole("", "approle")
	id := role.SetRole("drill", vaulttest.TokenOptions{
		Rules: vaulttest.Rules{"transit/decrypt/" + key: {"update"}},
	})
	cfg, err := config.Parse(fmt.Appendf(nil, "provider: vault\nvault:\n  keynames: [%s]\n  address: %s\n  roleID: %s\n  secretID: %s\n",
		key, v.URL(), id, role.NewSecretID("drill")), nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := drill.DialVault(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Unwrap(t.Context(), w); err != nil {
		t.Errorf("unwrapping: %v", err)
	}
	if n := len(role.Tokens()); n != 1 {
		t.Errorf("there are %d tokens, want 1", n)
	}
	d.Close(t.Context())
	if n := len(role.Tokens()); n != 0 {
		t.Errorf("after Close there are %d tokens, want none", n)
	}
}

func TestVaultRefusesTheLogin(t *testing.T) {
	v := newVault(t)
	v.EnableAppRole("", "approle")
	if _, err := dial(t, v, "roleID: unknown", "secretID: unknown"); err == nil {
		t.Error("a login with an unknown credential succeeded")
	}
}

// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

func TestEncryptAndDecrypt(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true, ClientCert: true})
	s.CreateKey("kek").Rotate()
	c := dial(t, s, nil)
	for name, test := range map[string]struct {
		pinned, used int
		plaintext    string
	}{
		"newest":       {0, 2, "a very secret seed"},
		"pinned old":   {1, 1, "a very secret seed"},
		"pinned new":   {2, 2, "a very secret seed"},
		"empty":        {0, 2, ""},
		"binary":       {0, 2, "\x00\xff\n\"<>"},
		"a kilobyte":   {1, 1, strings.Repeat("k", 1024)},
		"200 kilobyte": {0, 2, strings.Repeat("k", 200<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			ciphertext, used, err := c.Encrypt(bounded(t), "kek", test.pinned, []byte(test.plaintext), nil)
			if err != nil {
				t.Fatal(err)
			}
			if v, ok := vault.CiphertextVersion(ciphertext); used != test.used || v != test.used || !ok {
				t.Errorf("got version %d and %.10s…, want version %d", used, ciphertext, test.used)
			}
			got, err := c.Decrypt(bounded(t), "kek", ciphertext, nil)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != test.plaintext {
				t.Errorf("got %d bytes back, which are not the %d that were encrypted", len(got), len(test.plaintext))
			}
		})
	}
}

func TestEncryptRefused(t *testing.T) {
	tests := map[string]struct {
		arrange func(*vaulttest.Server, *vaulttest.Key)
		pinned  int
		class   fault.Class
		text    string
	}{
		"version unknown to this node": {
			func(s *vaulttest.Server, k *vaulttest.Key) { k.Rotate(); s.SetLag(1) }, 2,
			fault.VersionTooNew, "this Vault node does not have this key version (yet)",
		},
		"version below min_encryption_version": {
			func(_ *vaulttest.Server, k *vaulttest.Key) { k.Rotate(); k.SetMinEncryptionVersion(2) }, 1,
			fault.VersionTooOld, "this key version is below the key's min_encryption_version",
		},
		"key deleted": {
			func(_ *vaulttest.Server, k *vaulttest.Key) { k.Delete() }, 1,
			fault.Denied, `permission denied (403): the token is expired or revoked, or its policy lacks "update" on transit/encrypt/kek`,
		},
		"another version came back": {
			func(s *vaulttest.Server, _ *vaulttest.Key) {
				s.Intercept(answer(http.StatusOK, `{"data":{"ciphertext":"vault:v2:AAAA","key_version":1}}`))
			}, 1,
			fault.Unavailable, "unexpected response from Vault: key version 2 was used instead of 1",
		},
		"ciphertext without version": {
			func(s *vaulttest.Server, _ *vaulttest.Key) {
				s.Intercept(answer(http.StatusOK, `{"data":{"ciphertext":"AAAA","key_version":1}}`))
			}, 0,
			fault.Unavailable, "unexpected response from Vault: the ciphertext does not begin with vault:v<version>:",
		},
		"ciphertext is a number": {
			func(s *vaulttest.Server, _ *vaulttest.Key) {
				s.Intercept(answer(http.StatusOK, `{"data":{"ciphertext":1}}`))
			}, 0,
			fault.Unavailable, "unexpected response from Vault: the ciphertext does not begin with vault:v<version>:",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t)
			test.arrange(s, s.CreateKey("kek"))
			c := dial(t, s, nil)
			ciphertext, used, err := c.Encrypt(bounded(t), "kek", test.pinned, []byte("seed"), nil)
			if ciphertext != nil || used != 0 {
				t.Errorf("got %q and version %d with an error", ciphertext, used)
			}
			wantError(t, c, err, test.class, "encrypting with transit/kek at ADDRESS: "+test.text)
		})
	}
}

func TestDecryptRefused(t *testing.T) {
	tests := map[string]struct {
		arrange    func(*vaulttest.Server, *vaulttest.Key)
		ciphertext string // "" means one created by the key
		class      fault.Class
		text       string
	}{
		"too old": {
			func(_ *vaulttest.Server, k *vaulttest.Key) { k.Rotate(); k.SetMinDecryptionVersion(2) }, "",
			fault.VersionTooOld, "this key version is below the key's min_decryption_version; lower it until everything is re-encrypted",
		},
		"too new": {nil, "vault:v2:AAAA", fault.VersionTooNew, "this Vault node does not have this key version (yet)"},
		"key deleted": {
			func(_ *vaulttest.Server, k *vaulttest.Key) { k.Delete() }, "",
			fault.KeyLost, "the key does not exist",
		},
		"key recreated": {
			func(s *vaulttest.Server, k *vaulttest.Key) { k.Delete(); s.CreateKey("kek") }, "",
			fault.Invalid, "the ciphertext was not made by this key",
		},
		"key soft-deleted": {
			func(s *vaulttest.Server, _ *vaulttest.Key) {
				s.Intercept(answer(http.StatusBadRequest, `{"errors":["refusing to use soft-deleted key"]}`))
			}, "",
			fault.KeyLost, "the key is deleted",
		},
		"not base64": {nil, "vault:v1:*", fault.Invalid, "not a valid transit ciphertext"},
		"no prefix":  {nil, "x", fault.Invalid, "not a valid transit ciphertext"},
		"other 400": {
			func(s *vaulttest.Server, _ *vaulttest.Key) {
				s.Intercept(answer(http.StatusBadRequest, `{"errors":["something new"]}`))
			}, "",
			fault.Unavailable, "vault refused the request (400) for a reason that trousseau does not know; see Vault's audit log",
		},
		"no plaintext": {
			func(s *vaulttest.Server, _ *vaulttest.Key) { s.Intercept(answer(http.StatusOK, `{"data":{"x":"y"}}`)) }, "",
			fault.Unavailable, "unexpected response from Vault: no plaintext",
		},
		"plaintext not base64": {
			func(s *vaulttest.Server, _ *vaulttest.Key) {
				s.Intercept(answer(http.StatusOK, `{"data":{"plaintext":"*"}}`))
			}, "",
			fault.Unavailable, "unexpected response from Vault: the plaintext is not base64",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t)
			k := s.CreateKey("kek")
			c := dial(t, s, nil)
			ciphertext, _, err := c.Encrypt(bounded(t), "kek", 0, []byte("a very secret seed"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if test.ciphertext != "" {
				ciphertext = []byte(test.ciphertext)
			}
			if test.arrange != nil {
				test.arrange(s, k)
			}
			plaintext, err := c.Decrypt(bounded(t), "kek", ciphertext, nil)
			if plaintext != nil {
				t.Errorf("got a plaintext with an error")
			}
			wantError(t, c, err, test.class, "decrypting with transit/kek at ADDRESS: "+test.text)
		})
	}
}

func TestNamespaceAndSlashMount(t *testing.T) {
	s := vaulttest.Start(t)
	for _, at := range []struct{ namespace, mount, engine string }{
		{"", "transit", "transit"},
		{"", "kms/transit", "kms/transit"},
		{"", "v1", "v1"},
		{"team/a", "transit", "team/a/transit"},
		{"team/a", "kms/transit", "team/a/kms/transit"},
	} {
		s.Mount(at.namespace, at.mount).CreateKey("kek").Rotate()
		token := s.CreateToken(vaulttest.TokenOptions{Namespace: at.namespace, Rules: vaulttest.TransitPolicy(at.mount, "kek")})
		c := dial(t, s, func(cfg *vault.Config) {
			cfg.Namespace, cfg.Mount, cfg.Credential = at.namespace, at.mount, vault.Given(token.ID)
		})
		ciphertext, used, err := c.Encrypt(bounded(t), "kek", 0, []byte("seed"), nil)
		if err != nil || used != 2 {
			t.Errorf("%s: encrypting: got version %d, %v", at.engine, used, err)
			continue
		}
		if plaintext, err := c.Decrypt(bounded(t), "kek", ciphertext, nil); err != nil || string(plaintext) != "seed" {
			t.Errorf("%s: decrypting: got %q, %v", at.engine, plaintext, err)
		}
		if key, err := c.ReadKey(bounded(t), "kek"); err != nil || key.Latest != 2 {
			t.Errorf("%s: reading the key: got %+v, %v", at.engine, key, err)
		}
		if self, err := c.LookupSelf(bounded(t)); err != nil || self.Accessor != token.Accessor {
			t.Errorf("%s: looking up the token: got %+v, %v", at.engine, self, err)
		}
	}
}

func TestReadKey(t *testing.T) {
	at := time.Unix(1_700_000_000, 999)
	s := vaulttest.Start(t, vaulttest.Options{Now: func() time.Time { return at }})
	k := s.CreateKey("kek")
	at = at.Add(time.Hour)
	k.Rotate()
	k.Rotate()
	k.SetMinDecryptionVersion(2)
	got, err := dial(t, s, nil).ReadKey(bounded(t), "kek")
	if err != nil {
		t.Fatal(err)
	}
	if got.Latest != 3 || len(got.Created) != 2 {
		t.Errorf("got %+v", got)
	}
	for v := 2; v <= 3; v++ {
		if want := k.Created(v).Truncate(time.Second); !got.Created[v].Equal(want) {
			t.Errorf("version %d: got %v, want %v", v, got.Created[v], want)
		}
	}
}

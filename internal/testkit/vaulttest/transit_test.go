// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

func TestRotation(t *testing.T) {
	clock := newClock()
	s := vaulttest.Start(t, vaulttest.Options{Now: clock.Now})
	key := s.CreateKey("kek")
	c := newCaller(t, s, s.KMSToken("kek"))
	old := c.encrypt("kek", "seed")
	clock.advance(time.Hour)
	if got := key.Rotate(); got != 2 {
		t.Fatalf("Rotate: got version %d, want 2", got)
	}

	a := c.want(200, "POST", "transit/encrypt/kek", fields{"plaintext": b64("seed")})
	if ciphertext, _ := a.Data["ciphertext"].(string); !strings.HasPrefix(ciphertext, "vault:v2:") || a.Data["key_version"] != 2.0 {
		t.Errorf("after rotation: got %v", a.Data)
	}
	a = c.want(200, "POST", "transit/encrypt/kek", fields{"plaintext": b64("seed"), "key_version": 1})
	if ciphertext, _ := a.Data["ciphertext"].(string); !strings.HasPrefix(ciphertext, "vault:v1:") || a.Data["key_version"] != 1.0 {
		t.Errorf("pinned to version 1: got %v", a.Data)
	}
	if got := c.decrypt("kek", old); got != "seed" {
		t.Errorf("old ciphertext: got %q", got)
	}

	a = c.want(200, "GET", "transit/keys/kek", nil)
	versions, _ := a.Data["keys"].(map[string]any)
	if versions["1"] != 1_700_000_000.0 || versions["2"] != 1_700_003_600.0 || a.Data["latest_version"] != 2.0 || a.Data["type"] != "aes256-gcm96" {
		t.Errorf("keys/kek: got %v", a.Data)
	}
	key.Rotate()
	key.SetMinDecryptionVersion(2)
	a = c.want(200, "GET", "transit/keys/kek", nil)
	versions, _ = a.Data["keys"].(map[string]any)
	if got := slices.Sorted(maps.Keys(versions)); !slices.Equal(got, []string{"2", "3"}) || a.Data["min_decryption_version"] != 2.0 {
		t.Errorf("after min_decryption_version=2: got versions %v of %v", got, a.Data)
	}
	c.want(400, "POST", "transit/decrypt/kek", fields{"ciphertext": old}, "ciphertext or signature version is disallowed by policy (too old)")
}

func TestMountsAndNamespaces(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	s.Mount("team/a", "kms/transit").CreateKey("kek").Rotate()
	token := s.CreateToken(vaulttest.TokenOptions{Namespace: "team/a", Rules: vaulttest.TransitPolicy("kms/transit", "kek")}).ID
	want := func(c *caller, path string) {
		t.Helper()
		if a := c.want(200, "GET", path, nil); a.Data["latest_version"] != 2.0 {
			t.Errorf("%s in namespace %q: not the key of team/a", path, c.namespace)
		}
	}
	c := newCaller(t, s, token)
	want(c, "team/a/kms/transit/keys/kek")
	want(c, "team/a/kms%2Ftransit/keys/kek")
	c.namespace = "team/"
	want(c, "a/kms/transit/keys/kek")
	c.namespace = "team/a"
	want(c, "kms/transit/keys/kek")
	want(c, "kms%2Ftransit/keys/kek")
	if a := c.want(200, "GET", "auth/token/lookup-self", nil); a.Data["namespace_path"] != "team/a/" {
		t.Errorf("lookup-self: got namespace_path %v", a.Data["namespace_path"])
	}
	c.namespace = ""
	c.want(403, "GET", "transit/keys/kek", nil)

	root := newCaller(t, s, s.RootToken())
	root.namespace = "team/b"
	root.want(404, "GET", "transit/keys/kek", nil)
	root.namespace = "team/a"
	want(root, "kms/transit/keys/kek")
	s.Unmount("team/a", "kms/transit")
	root.want(404, "GET", "kms/transit/keys/kek", nil)
}

func TestLag(t *testing.T) {
	active := vaulttest.Start(t)
	standby := vaulttest.Start(t, vaulttest.Options{Join: active})
	key := active.CreateKey("kek")
	token := active.KMSToken("kek")
	onActive, onStandby := newCaller(t, active, token), newCaller(t, standby, token)
	old := onStandby.encrypt("kek", "old")
	standby.SetLag(1)
	key.Rotate()
	fresh := onActive.encrypt("kek", "new")

	if a := onStandby.want(200, "GET", "transit/keys/kek", nil); a.Data["latest_version"] != 1.0 {
		t.Errorf("lagging node: got latest_version %v, want 1", a.Data["latest_version"])
	}
	onStandby.want(400, "POST", "transit/decrypt/kek", fields{"ciphertext": fresh}, "invalid ciphertext: version is too new")
	onStandby.want(400, "POST", "transit/encrypt/kek", fields{"plaintext": "", "key_version": 2},
		"requested version for encryption is higher than the latest key version")
	if got := onStandby.encrypt("kek", "x"); !strings.HasPrefix(got, "vault:v1:") {
		t.Errorf("lagging node encrypted with %.9s", got)
	}
	if got := onStandby.decrypt("kek", old); got != "old" {
		t.Errorf("lagging node decrypted %q", got)
	}
	standby.SetLag(0)
	if got := onStandby.decrypt("kek", fresh); got != "new" {
		t.Errorf("caught-up node decrypted %q", got)
	}
}

func TestForgetNewest(t *testing.T) {
	s := vaulttest.Start(t)
	key := s.CreateKey("kek")
	token := s.KMSToken("kek")
	c := newCaller(t, s, token)
	old := c.encrypt("kek", "old")
	key.Rotate()
	key.SetMinDecryptionVersion(2)
	lost := c.encrypt("kek", "lost")
	if got := key.ForgetNewest(); got != 1 {
		t.Fatalf("ForgetNewest: got version %d, want 1", got)
	}
	if got := c.decrypt("kek", old); got != "old" {
		t.Errorf("version 1 decrypts %q", got)
	}
	c.want(400, "POST", "transit/decrypt/kek", fields{"ciphertext": lost}, "invalid ciphertext: version is too new")
	if got := key.Rotate(); got != 2 {
		t.Errorf("Rotate: got version %d, want 2", got)
	}
	c.want(400, "POST", "transit/decrypt/kek", fields{"ciphertext": lost}, "cipher: message authentication failed")
	defer func() {
		if recover() == nil {
			t.Error("forgetting the only version: no panic")
		}
	}()
	s.CreateKey("other").ForgetNewest()
}

func TestKeyTypes(t *testing.T) {
	const context = "missing 'context' for key derivation; the key was created using a derived key, which means additional," +
		" per-request information must be included in order to perform operations with the key"
	s := vaulttest.Start(t)
	c := newCaller(t, s, s.RootToken())
	for _, tt := range []struct {
		options vaulttest.KeyOptions
		refusal string // of encrypt without associated data; empty if it succeeds
	}{
		{vaulttest.KeyOptions{}, ""},
		{vaulttest.KeyOptions{Type: "chacha20-poly1305"}, ""},
		{vaulttest.KeyOptions{Type: "rsa-2048"}, ""},
		{vaulttest.KeyOptions{Type: "ecdsa-p256"}, "message encryption not supported for key type ecdsa-p256"},
		{vaulttest.KeyOptions{Type: "ed25519"}, "message encryption not supported for key type ed25519"},
		{vaulttest.KeyOptions{Type: "hmac"}, "message encryption not supported for key type hmac"},
		{vaulttest.KeyOptions{Derived: true}, context},
		{vaulttest.KeyOptions{Derived: true, Convergent: true}, context},
	} {
		name := strings.Trim(fmt.Sprintf("%s-%t-%t", tt.options.Type, tt.options.Derived, tt.options.Convergent), "-")
		s.CreateKeyWith(name, tt.options)
		s.CreateKey(name) // leaves it as it is
		if tt.refusal == "" {
			if got := c.decrypt(name, c.encrypt(name, "seed")); got != "seed" {
				t.Errorf("%s: decrypted %q", name, got)
			}
			continue
		}
		c.want(400, "POST", "transit/encrypt/"+name, fields{"plaintext": ""}, tt.refusal)
	}
	for _, wrong := range []vaulttest.KeyOptions{{Type: "aes512"}, {Type: "aes256-cbc"}, {Convergent: true}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v: no panic", wrong)
				}
			}()
			s.CreateKeyWith("wrong", wrong)
		}()
	}
}

func TestSoftDeleted(t *testing.T) {
	s := vaulttest.Start(t)
	key := s.CreateKey("kek")
	c := newCaller(t, s, s.KMSToken("kek"))
	ciphertext := c.encrypt("kek", "seed")
	key.SetSoftDeleted(true)
	const refusal = "refusing to use soft-deleted key"
	c.want(400, "POST", "transit/encrypt/kek", fields{"plaintext": ""}, refusal)
	c.want(400, "POST", "transit/decrypt/kek", fields{"ciphertext": ciphertext}, refusal)
	if a := c.want(400, "POST", "transit/decrypt/kek", fields{"batch_input": []fields{{"ciphertext": ciphertext}}}); !strings.Contains(a.raw, refusal) {
		t.Errorf("batch: got %s", a.raw)
	}
	if a := c.want(200, "GET", "transit/keys/kek", nil); a.Data["soft_deleted"] != true {
		t.Errorf("keys/kek: got %v", a.Data)
	}
	key.SetSoftDeleted(false)
	if got := c.decrypt("kek", ciphertext); got != "seed" {
		t.Errorf("restored: decrypted %q", got)
	}
}

func TestConcurrentUse(t *testing.T) {
	s := vaulttest.Start(t)
	key := s.CreateKey("kek")
	token := s.KMSToken("kek")
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			c := newCaller(t, s, token)
			for range 20 {
				a, err := c.try(t.Context(), "POST", "transit/encrypt/kek", fields{"plaintext": b64("seed")})
				if err != nil {
					t.Errorf("encrypt: %v", err)
					return
				}
				// The answer must name the version used for the ciphertext, even during concurrent rotations.
				ciphertext, _ := a.Data["ciphertext"].(string)
				if want := fmt.Sprintf("vault:v%v:", a.Data["key_version"]); !strings.HasPrefix(ciphertext, want) {
					t.Errorf("got %.9s…, want %s…", ciphertext, want)
				}
			}
		})
	}
	workers.Go(func() {
		for range 40 {
			key.Rotate()
			s.Revoke(s.KMSToken("kek"))
			s.Inject(vaulttest.Fault{Delay: time.Microsecond})()
			s.Secrets()
		}
	})
	workers.Wait()
	if got := key.Rotate(); got != 42 {
		t.Errorf("latest version: got %d, want 42", got)
	}
}

func TestSecrets(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	token := s.KMSToken("kek")
	newCaller(t, s, token).encrypt("kek", "a very secret seed")
	newCaller(t, s, "hvs.never-existed").want(403, "GET", "transit/keys/kek", nil)
	for _, want := range []string{token, s.RootToken(), "a very secret seed", "hvs.never-existed"} {
		if !slices.Contains(s.Secrets(), want) {
			t.Errorf("Secrets lacks %q", want)
		}
	}
	for _, text := range []string{"token=" + token + "!", b64("a very secret seed")} {
		if _, found := s.Leak(text); !found {
			t.Errorf("Leak did not find the secret in %q", text)
		}
	}
	if secret, found := s.Leak("transit/keys/kek: permission denied"); found {
		t.Errorf("Leak found %q in a clean text", secret)
	}
}

func TestKV(t *testing.T) {
	s := vaulttest.Start(t)
	root := newCaller(t, s, s.RootToken())
	root.want(404, "GET", "secret/data/trousseau/config", nil)
	root.want(200, "PUT", "secret/data/trousseau/config", fields{"data": fields{"token": "one"}})
	if got := s.PutSecret("trousseau/config", fields{"token": "two"}); got != 2 {
		t.Errorf("PutSecret: got version %d, want 2", got)
	}
	reader := newCaller(t, s, s.CreateToken(vaulttest.TokenOptions{
		Rules: vaulttest.Rules{"secret/data/trousseau/*": {"read"}},
	}).ID)
	a := reader.want(200, "GET", "secret/data/trousseau/config", nil)
	data, _ := a.Data["data"].(map[string]any)
	metadata, _ := a.Data["metadata"].(map[string]any)
	if data["token"] != "two" || metadata["version"] != 2.0 || a.MountType != "kv" {
		t.Errorf("read: got %v", a.Data)
	}
	reader.want(403, "PUT", "secret/data/trousseau/config", fields{"data": fields{}}, denied)
	reader.want(403, "GET", "secret/data/other", nil, denied)
}

// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

func TestEncryptDecrypt(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	c := newCaller(t, s, s.KMSToken("kek"))

	first, second := c.encrypt("kek", "seed"), c.encrypt("kek", "seed")
	if first == second {
		t.Error("the same plaintext twice gave the same ciphertext")
	}
	encoded, ok := strings.CutPrefix(first, "vault:v1:")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(raw) != 12+len("seed")+16 {
		t.Errorf("ciphertext %q is not vault:v1: and nonce, ciphertext, tag in base64", first)
	}
	for _, ciphertext := range []string{first, second} {
		if got := c.decrypt("kek", ciphertext); got != "seed" {
			t.Errorf("decrypt: got %q, want %q", got, "seed")
		}
	}
	if got := c.decrypt("kek", c.encrypt("kek", "")); got != "" {
		t.Errorf("empty plaintext: got %q", got)
	}
}

func TestReplyEnvelope(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	a := newCaller(t, s, s.RootToken()).do("POST", "transit/encrypt/kek", fields{"plaintext": b64("x")})
	for _, field := range []string{"request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth", "mount_type"} {
		if !strings.Contains(a.raw, `"`+field+`":`) {
			t.Errorf("no %s in %s", field, a.raw)
		}
	}
	if len(a.RequestID) != 36 || a.MountType != "transit" {
		t.Errorf("request_id %q, mount_type %q", a.RequestID, a.MountType)
	}
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type: got %q", got)
	}
}

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

func TestTransitErrors(t *testing.T) {
	s := vaulttest.Start(t)
	key := s.CreateKey("kek")
	key.Rotate()
	key.Rotate()
	key.SetMinEncryptionVersion(2)
	root := newCaller(t, s, s.RootToken())
	withAAD := root.want(200, "POST", "transit/encrypt/kek", fields{"plaintext": b64("x"), "associated_data": b64("a")}).Data["ciphertext"]
	good := root.encrypt("kek", "seed")
	const notAuthentic = "cipher: message authentication failed"

	for _, tt := range []struct {
		name   string
		path   string
		body   fields
		status int
		want   string
	}{
		{"no plaintext", "encrypt/kek", fields{}, 400, "missing plaintext to encrypt"},
		{"plaintext not base64", "encrypt/kek", fields{"plaintext": "!"}, 400, "illegal base64 data at input byte 0"},
		{"version negative", "encrypt/kek", fields{"plaintext": "", "key_version": -1}, 400, "requested version for encryption is negative"},
		{"version too high", "encrypt/kek", fields{"plaintext": "", "key_version": 4}, 400, "requested version for encryption is higher than the latest key version"},
		{"version too low", "encrypt/kek", fields{"plaintext": "", "key_version": 1}, 400, "requested version for encryption is less than the minimum encryption key version"},
		{"version no number", "encrypt/kek", fields{"plaintext": "", "key_version": "x"}, 400, `Field validation failed: error converting input for field "key_version"`},
		{"bad AAD", "encrypt/kek", fields{"plaintext": "", "associated_data": "!"}, 500,
			"1 error occurred:\n\t* unable to get associated_data/additional_data from factory[0]: illegal base64 data at input byte 0\n\n"},
		{"no ciphertext", "decrypt/kek", fields{}, 400, "missing ciphertext to decrypt"},
		{"no prefix", "decrypt/kek", fields{"ciphertext": "x"}, 400, "invalid ciphertext: no prefix"},
		{"fields", "decrypt/kek", fields{"ciphertext": "vault:v1"}, 400, "invalid ciphertext: wrong number of fields"},
		{"version", "decrypt/kek", fields{"ciphertext": "vault:vx:AAAA"}, 400, "invalid ciphertext: version number could not be decoded"},
		{"too new", "decrypt/kek", fields{"ciphertext": "vault:v4:AAAA"}, 400, "invalid ciphertext: version is too new"},
		{"base64", "decrypt/kek", fields{"ciphertext": "vault:v1:!"}, 400, "invalid ciphertext: could not decode base64"},
		{"length", "decrypt/kek", fields{"ciphertext": "vault:v1:AAAA"}, 400, "invalid ciphertext length"},
		{"other version's", "decrypt/kek", fields{"ciphertext": strings.Replace(good, "v3", "v2", 1)}, 400, notAuthentic},
		{"AAD missing", "decrypt/kek", fields{"ciphertext": withAAD}, 400, notAuthentic},
		{"AAD wrong", "decrypt/kek", fields{"ciphertext": withAAD, "associated_data": b64("b")}, 400, notAuthentic},
		{"AAD extra", "decrypt/kek", fields{"ciphertext": good, "associated_data": b64("a")}, 400, notAuthentic},
		{"missing key", "decrypt/none", fields{"ciphertext": good}, 400, "encryption key not found"},
		{"missing mount", "../nowhere/encrypt/kek", fields{}, 404, `no handler for route "nowhere/encrypt/kek". route entry not found.`},
		{"not a path", "what/ever", fields{}, 404, "1 error occurred:\n\t* unsupported path\n\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := "transit/" + tt.path
			path = strings.TrimPrefix(path, "transit/../")
			c := newCaller(t, s, s.RootToken())
			c.want(tt.status, "POST", path, tt.body, tt.want)
		})
	}
	root.want(405, "GET", "transit/encrypt/kek", nil, "1 error occurred:\n\t* unsupported operation\n\n")
	root.want(200, "POST", "transit/decrypt/kek", fields{"ciphertext": withAAD, "associated_data": b64("a")})
}

func TestMissingKey(t *testing.T) {
	s := vaulttest.Start(t)
	kms := newCaller(t, s, s.KMSToken("kek"))
	kms.want(404, "GET", "transit/keys/kek", nil)
	if a := kms.do("GET", "transit/keys/kek", nil); a.raw != `{"errors":[]}`+"\n" {
		t.Errorf("missing key: got %q", a.raw)
	}
	// Encrypting with a missing key is creating it, and "update" does not allow that.
	kms.want(403, "POST", "transit/encrypt/kek", fields{"plaintext": ""}, "1 error occurred:\n\t* permission denied\n\n")
	creator := newCaller(t, s, s.CreateToken(vaulttest.TokenOptions{
		Rules: vaulttest.Rules{"transit/encrypt/kek": {"create", "update"}},
	}).ID)
	creator.encrypt("kek", "x")
	if !s.Transit().Key("kek").Exists() {
		t.Error("encrypt with create did not create the key")
	}
	kms.want(200, "GET", "transit/keys/kek", nil)
}

func TestDeleteAndRecreate(t *testing.T) {
	clock := newClock()
	s := vaulttest.Start(t, vaulttest.Options{Now: clock.Now})
	key := s.CreateKey("kek")
	c := newCaller(t, s, s.KMSToken("kek"))
	ciphertext := c.encrypt("kek", "seed")
	key.Delete()
	c.want(400, "POST", "transit/decrypt/kek", fields{"ciphertext": ciphertext}, "encryption key not found")
	clock.advance(time.Minute)
	s.CreateKey("kek")
	c.want(400, "POST", "transit/decrypt/kek", fields{"ciphertext": ciphertext}, "cipher: message authentication failed")
	if got := key.Created(1); !got.Equal(clock.Now()) {
		t.Errorf("creation time: got %v, want %v", got, clock.Now())
	}
}

func TestOperatorOverHTTP(t *testing.T) {
	s := vaulttest.Start(t)
	root := newCaller(t, s, s.RootToken())
	root.want(200, "POST", "transit/keys/kek", nil)
	if a := root.want(200, "PUT", "transit/keys/kek", fields{"exportable": true}); a.Data["exportable"] != false || a.Warnings != nil {
		t.Errorf("creating an existing key: got %v and warnings %q", a.Data, a.Warnings)
	}
	if a := root.want(200, "POST", "transit/keys/kek/rotate", nil); a.Data["latest_version"] != 2.0 {
		t.Errorf("rotate: got %v", a.Data)
	}
	root.want(200, "POST", "transit/keys/kek/config", fields{"min_decryption_version": 2})
	root.want(400, "POST", "transit/keys/kek/config", fields{"min_decryption_version": 3},
		"cannot set min decryption version of 3, latest key version is 2")
	root.want(400, "DELETE", "transit/keys/kek", nil, "error deleting policy kek: deletion is not allowed for this key")
	root.want(200, "POST", "transit/keys/kek/config", fields{"deletion_allowed": true})
	if a := root.want(204, "DELETE", "transit/keys/kek", nil); a.raw != "" {
		t.Errorf("delete: got body %q", a.raw)
	}
	root.want(404, "GET", "transit/keys/kek", nil)
	newCaller(t, s, s.KMSToken("kek")).want(403, "POST", "transit/keys/kek/rotate", nil)
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

func TestSnapshot(t *testing.T) {
	s := vaulttest.Start(t)
	key := s.CreateKey("kek")
	before := s.KMSToken("kek")
	c := newCaller(t, s, before)
	old := c.encrypt("kek", "old")
	backup := s.Snapshot()
	key.Rotate()
	fresh, after := c.encrypt("kek", "new"), s.KMSToken("kek")

	for range 2 {
		s.Restore(backup)
		if got := key.Latest(); got != 1 {
			t.Fatalf("restored: got version %d, want 1", got)
		}
		if got := c.decrypt("kek", old); got != "old" {
			t.Errorf("restored: old ciphertext gave %q", got)
		}
		c.want(400, "POST", "transit/decrypt/kek", fields{"ciphertext": fresh}, "invalid ciphertext: version is too new")
		if s.TokenAlive(after) || !s.TokenAlive(before) {
			t.Error("restored: want only the older token alive")
		}
		// What happens after a restore must not change the backup.
		key.Rotate()
		c.want(400, "POST", "transit/decrypt/kek", fields{"ciphertext": fresh}, "cipher: message authentication failed")
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
	if got := key.ForgetNewest(); got != 1 || key.Latest() != 1 {
		t.Fatalf("ForgetNewest: got version %d, latest %d, want 1", got, key.Latest())
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

// Associated data is authenticated, not encrypted: whoever decrypts has to bring the same.
func TestAssociatedData(t *testing.T) {
	s := vaulttest.Start(t)
	key := s.CreateKey("kek")
	c := newCaller(t, s, s.KMSToken("kek"))
	seal := func(aad string) any {
		body := fields{"plaintext": b64("seed")}
		if aad != "" {
			body["associated_data"] = b64(aad)
		}
		return c.want(200, "POST", "transit/encrypt/kek", body).Data["ciphertext"]
	}
	bound, free := seal("cluster-a"), seal("")
	key.Rotate()
	const notAuthentic = "cipher: message authentication failed"
	for _, tt := range []struct {
		name       string
		ciphertext any
		aad        any // nil leaves it out
		want       string
	}{
		{"the same", bound, b64("cluster-a"), ""},
		{"other", bound, b64("cluster-b"), notAuthentic},
		{"longer", bound, b64("cluster-aa"), notAuthentic},
		{"missing", bound, nil, notAuthentic},
		{"empty", bound, "", notAuthentic},
		{"none, none", free, nil, ""},
		{"none, empty", free, "", ""},
		{"none, some", free, b64("cluster-a"), notAuthentic},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := fields{"ciphertext": tt.ciphertext}
			if tt.aad != nil {
				body["associated_data"] = tt.aad
			}
			if tt.want != "" {
				c.want(400, "POST", "transit/decrypt/kek", body, tt.want)
			} else if got := c.want(200, "POST", "transit/decrypt/kek", body).Data["plaintext"]; got != b64("seed") {
				t.Errorf("got %v", got)
			}
		})
	}
	c.want(500, "POST", "transit/decrypt/kek", fields{"ciphertext": bound, "associated_data": "!"},
		"1 error occurred:\n\t* unable to get associated_data/additional_data from factory[0]: illegal base64 data at input byte 0\n\n")
}

func TestConcurrentUse(t *testing.T) {
	s := vaulttest.Start(t)
	key := s.CreateKey("kek")
	backup := s.Snapshot()
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
				// The version in the answer is the one the ciphertext was made with, whatever rotates meanwhile.
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
			s.Delay(time.Microsecond)()
			s.Snapshot()
			s.Secrets()
		}
	})
	workers.Wait()
	if got := key.Latest(); got != 41 {
		t.Errorf("latest version: got %d, want 41", got)
	}
	s.Restore(backup)
	if got := key.Latest(); got != 1 {
		t.Errorf("restored: got version %d, want 1", got)
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

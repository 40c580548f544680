// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/test/apiserver"
)

const password = "correct horse battery staple"

// write writes a Secret through s and returns the stored bytes, also decoded.
func write(t *testing.T, s *apiserver.Server, name string) ([]byte, *kmstypes.EncryptedObject) {
	t.Helper()
	stored, err := s.Write(t.Context(), apiserver.Secret(name, password))
	if err != nil {
		t.Fatalf("writing: %v", err)
	}
	object, err := s.Open(stored)
	if err != nil {
		t.Fatal(err)
	}
	return stored, object
}

// read reads a Secret through s and checks its value and whether it is stale.
func read(t *testing.T, s *apiserver.Server, name string, stored []byte, wantStale bool) {
	t.Helper()
	secret, stale, err := s.Read(t.Context(), name, stored)
	if err != nil {
		t.Fatalf("reading %s: %v", name, err)
	}
	if got := string(secret.Data["password"]); got != password {
		t.Errorf("reading %s: got %q, want %q", name, got, password)
	}
	if stale != wantStale {
		t.Errorf("reading %s: got stale %t, want %t", name, stale, wantStale)
	}
}

func TestStored(t *testing.T) {
	t.Parallel()
	vault, _ := startVault(t)
	p := startHealthy(t, vault)
	s := load(t, p)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}

	stored, object := write(t, s, "a")
	if prefix := "k8s:enc:kms:v2:" + provider(t) + ":"; !bytes.HasPrefix(stored, []byte(prefix)) {
		t.Errorf("stored: got %q…, want %s…", stored[:min(len(stored), 40)], prefix)
	}
	if bytes.Contains(stored, []byte(password)) {
		t.Error("stored: contains the password in plaintext")
	}
	if want := keyID(t, dial(t, p)); object.KeyID != want {
		t.Errorf("stored: got key_id %q, want Status's %q", object.KeyID, want)
	}
	if got := string(object.EncryptedDEKSource); !strings.HasPrefix(got, "vault:v1:") {
		t.Errorf("stored: got seed %q, want vault:v1:…", got)
	}
	if got, want := object.EncryptedDEKSourceType, kmstypes.EncryptedDEKSourceType_HKDF_SHA256_XNONCE_AES_GCM_SEED; got != want {
		t.Errorf("stored: got type %s, want %s", got, want)
	}
	read(t, s, "a", stored, false)
	if _, _, err := s.Read(t.Context(), "b", stored); err == nil {
		t.Error("reading it as another Secret: got no error")
	}
}

// TestOneSeed checks that Vault is called once per seed and API server, not per
// object.
func TestOneSeed(t *testing.T) {
	t.Parallel()
	vault, _ := startVault(t)
	p := startHealthy(t, vault, "--probe-interval=1h")
	vault.ResetCounts()
	s := load(t, p)
	first, object := write(t, s, "first")
	for range 20 {
		stored, other := write(t, s, "other")
		if !bytes.Equal(other.EncryptedDEKSource, object.EncryptedDEKSource) {
			t.Fatal("two objects have different seeds")
		}
		read(t, s, "other", stored, false)
	}
	// On a busy machine the call may be retried.
	if got := vault.Count(vaulttest.OpEncrypt); got < 1 || got > 3 {
		t.Errorf("an API server that started and wrote 21 objects: got %d encrypts in Vault, want one", got)
	}

	vault.ResetCounts()
	another := load(t, p)
	for range 20 {
		read(t, another, "first", first, false)
	}
	if got := vault.Count(vaulttest.OpDecrypt); got < 1 || got > 3 {
		t.Errorf("an API server that started and read 20 times: got %d decrypts in Vault, want one", got)
	}
}

// TestKeyRotation checks that the API server notices a rotation, uses a new seed,
// and still reads older objects.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	vault, key := startVault(t)
	p := startHealthy(t, vault, "--probe-interval=200ms")
	s := load(t, p)
	old, oldObject := write(t, s, "old")

	key.Rotate()
	kms := dial(t, p)
	await(t, 5*time.Second, "Status to announce version 2", func(context.Context) bool { return keyID(t, kms) != oldObject.KeyID })
	var stored []byte
	var object *kmstypes.EncryptedObject
	await(t, apiserver.CheckedGood+5*time.Second, "the API server to write under version 2", func(ctx context.Context) bool {
		if err := s.Check(ctx); err != nil {
			t.Fatalf("the health check failed during the rotation: %v", err)
		}
		stored, object = write(t, s, "new")
		return object.KeyID != oldObject.KeyID
	})
	if want := keyID(t, kms); object.KeyID != want || !strings.HasPrefix(want, "transit/"+keyName+"/v2@") {
		t.Errorf("stored: got key_id %q, Status says %q, want both to be of version 2", object.KeyID, want)
	}
	if got := string(object.EncryptedDEKSource); !strings.HasPrefix(got, "vault:v2:") {
		t.Errorf("stored: got seed %q, want vault:v2:…", got)
	}
	read(t, s, "new", stored, false)
	read(t, s, "old", old, true)

	restarted := load(t, p)
	read(t, restarted, "new", stored, false)
	read(t, restarted, "old", old, true)
}

// TestTwoNodes runs two API servers with one plugin each and a shared Vault.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	vault, key := startVault(t)
	quick, slow := startHealthy(t, vault, "--probe-interval=200ms"), startHealthy(t, vault, "--probe-interval=1h")
	one, two := load(t, quick), load(t, slow)

	byOne, object := write(t, one, "one")
	byTwo, other := write(t, two, "two")
	if object.KeyID != other.KeyID {
		t.Errorf("got key_ids %q and %q, want the same", object.KeyID, other.KeyID)
	}
	read(t, two, "one", byOne, false)
	read(t, one, "two", byTwo, false)

	// Only one node has noticed the rotation; both must still read everything.
	key.Rotate()
	kms := dial(t, quick)
	await(t, 5*time.Second, "the quick node to announce version 2", func(context.Context) bool { return keyID(t, kms) != object.KeyID })
	if got := keyID(t, dial(t, slow)); got != object.KeyID {
		t.Fatalf("the slow node announces %q already, want %q", got, object.KeyID)
	}
	restarted := load(t, quick)
	ahead, _ := write(t, restarted, "ahead")
	read(t, two, "ahead", ahead, true)
	read(t, restarted, "two", byTwo, true)
}

// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmsservice "k8s.io/kms/pkg/service"

	"github.com/trousseau-io/trousseau/test/apiserver"
	"github.com/trousseau-io/trousseau/test/harness/plugin"
)

// dial returns kube-apiserver's client for p.
func dial(t *testing.T, p *plugin.Process) kmsservice.Service {
	t.Helper()
	kms, err := apiserver.Dial(t.Context(), p.Socket(), provider(t))
	if err != nil {
		t.Fatal(err)
	}
	return kms
}

func keyID(t *testing.T, kms kmsservice.Service) string {
	t.Helper()
	resp, err := kms.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return resp.KeyID
}

// check calls kube-apiserver's health check until it has the wanted result, as long
// as an older result may be cached, and returns it.
func check(t *testing.T, s *apiserver.Server, healthy bool) error {
	t.Helper()
	within, want := apiserver.CheckedBad, "kube-apiserver to find the plugin healthy"
	if !healthy {
		within, want = apiserver.CheckedGood, "kube-apiserver to find the plugin unhealthy"
	}
	var verdict error
	await(t, within+5*time.Second, want, func(ctx context.Context) bool {
		verdict = s.Check(ctx)
		return (verdict == nil) == healthy
	})
	return verdict
}

// TestCalls makes each call with kube-apiserver's client and checks the answers with
// its rules.
func TestCalls(t *testing.T) {
	t.Parallel()
	vault, _ := startVault(t)
	kms := dial(t, startHealthy(t, vault))

	announced, err := kms.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if announced.Healthz != "ok" || announced.Version != kmsv2.KMSAPIVersionv2 {
		t.Errorf("Status: got healthz %q, version %q, want ok, v2", announced.Healthz, announced.Version)
	}
	if code, err := kmsv2.ValidateKeyID(announced.KeyID); err != nil {
		t.Errorf("Status: key_id %q is refused: %s, %v", announced.KeyID, code, err)
	}

	seed := bytes.Repeat([]byte{1}, 32)
	encrypted, err := kms.Encrypt(t.Context(), "1", seed)
	if err != nil {
		t.Fatal(err)
	}
	if encrypted.KeyID != announced.KeyID {
		t.Errorf("Encrypt: got key_id %q, want Status's %q", encrypted.KeyID, announced.KeyID)
	}
	decrypted, err := kms.Decrypt(t.Context(), "2", &kmsservice.DecryptRequest{Ciphertext: encrypted.Ciphertext, KeyID: encrypted.KeyID})
	if err != nil || !bytes.Equal(decrypted, seed) {
		t.Errorf("Decrypt: got %x, %v, want %x", decrypted, err, seed)
	}

	if _, object, _, err := kmsv2.GenerateTransformer(t.Context(), "3", kms, true); err != nil {
		t.Errorf("kube-apiserver generates a seed: %v", err)
	} else if object.KeyID != announced.KeyID || len(object.Annotations) != 0 {
		t.Errorf("seed: got key_id %q and %d annotations, want %q and none", object.KeyID, len(object.Annotations), announced.KeyID)
	}
}

func TestDecryptRefuses(t *testing.T) {
	t.Parallel()
	vault, _ := startVault(t)
	kms := dial(t, startHealthy(t, vault))
	good, err := kms.Encrypt(t.Context(), "1", []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(good.Ciphertext)
	damaged[len(damaged)-5] ^= 1
	for _, tc := range []struct {
		name       string
		ciphertext []byte
		keyID      string
	}{
		{"key_id of another plugin", good.Ciphertext, "projects/1/cryptoKeys/kek"},
		{"key_id of another key", good.Ciphertext, "transit/another-key/v1@1"},
		{"key_id of another version", good.Ciphertext, "transit/" + keyName + "/v2@1"},
		{"damaged ciphertext", damaged, good.KeyID},
		{"no transit ciphertext", []byte("ciphertext"), good.KeyID},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := kms.Decrypt(t.Context(), "2", &kmsservice.DecryptRequest{Ciphertext: tc.ciphertext, KeyID: tc.keyID})
			if got := status.Code(err); got != codes.InvalidArgument {
				t.Errorf("got %v (%v), want InvalidArgument", got, err)
			}
		})
	}
}

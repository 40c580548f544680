// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsv1 "k8s.io/kms/apis/v1beta1"

	"github.com/trousseau-io/trousseau/internal/daemon/kms"
	"github.com/trousseau-io/trousseau/internal/fault"
)

// TestV1Decrypts sends what plugins of KMS v1 stored.
func TestV1Decrypts(t *testing.T) {
	const ciphertext = "vault:v3:AAAA"
	encoded := base64.StdEncoding.EncodeToString([]byte(ciphertext))
	k := working()
	k.decrypt = func(_ context.Context, keyID string, c []byte) ([]byte, error) {
		if keyID != "" {
			t.Errorf("key_id = %q, want none", keyID)
		}
		if string(c) != ciphertext {
			return nil, fault.Errorf(fault.Invalid, "not transit's")
		}
		return []byte("dek"), nil
	}
	h := startWith(t, kms.Options{KEK: k, RequestTimeout: time.Minute, DecryptV1: true})
	v, err := h.v1.Version(t.Context(), &kmsv1.VersionRequest{Version: "v1beta1"})
	if err != nil || v.GetVersion() != "v1beta1" {
		t.Errorf("Version = %v, %v", v, err)
	}
	tests := []struct {
		name, cipher, want string
		code               codes.Code
	}{
		{"transit's", ciphertext, "", codes.OK},
		{"of the original Trousseau 2.0", "vault:-:" + encoded + "\n", "", codes.OK},
		{"of 2.0 with two providers", "awskms:-:AQICAHg=\nvault:-:" + encoded + "\n", "", codes.OK},
		{"large, of 2.0", "awskms:-:" + strings.Repeat("A", 2000) + "\nvault:-:" + encoded + "\n", "", codes.OK},
		{"another plugin's", "AQICAHg=", "this was not encrypted with this plugin's key; see trousseau's log", codes.InvalidArgument},
		{"empty", "", "ciphertext is empty", codes.InvalidArgument},
		{"long", strings.Repeat("c", 1025), "ciphertext: 1025 bytes exceed the limit of 1024", codes.InvalidArgument},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := h.v1.Decrypt(t.Context(), &kmsv1.DecryptRequest{Version: "v1beta1", Cipher: []byte(tt.cipher)})
			checkStatus(t, err, tt.code, tt.want)
			if tt.code == codes.OK && string(r.GetPlain()) != "dek" {
				t.Errorf("plaintext = %q", r.GetPlain())
			}
		})
	}
	want := `
# HELP trousseau_kms_requests_total KMS requests, by method and gRPC code.
# TYPE trousseau_kms_requests_total counter
trousseau_kms_requests_total{code="InvalidArgument",method="DecryptV1"} 3
trousseau_kms_requests_total{code="OK",method="DecryptV1"} 4
trousseau_kms_requests_total{code="OK",method="VersionV1"} 1
`
	if err := testutil.GatherAndCompare(h.registry, strings.NewReader(want), "trousseau_kms_requests_total"); err != nil {
		t.Error(err)
	}
	if got := h.logs.FilterMessage("request").Len(); got != len(tests) {
		t.Errorf("%d requests are logged, want %d", got, len(tests))
	}
}

// TestV1HealthCheck makes kube-apiserver's health check of KMS v1. It has the outcome
// of Status, and nothing is encrypted.
func TestV1HealthCheck(t *testing.T) {
	k := working()
	k.encrypt = func(context.Context, []byte) ([]byte, string, error) {
		t.Error("something was encrypted for KMS v1")
		return nil, "", nil
	}
	k.decrypt = func(context.Context, string, []byte) ([]byte, error) {
		t.Error("the health check was decrypted")
		return nil, nil
	}
	var problem error
	k.status = func() (string, error) { return keyID, problem }
	h := startWith(t, kms.Options{KEK: k, RequestTimeout: time.Minute, DecryptV1: true})
	encrypted, err := h.v1.Encrypt(t.Context(), &kmsv1.EncryptRequest{Version: "v1beta1", Plain: []byte("ping")})
	if err != nil {
		t.Fatal(err)
	}
	decrypted, err := h.v1.Decrypt(t.Context(), &kmsv1.DecryptRequest{Version: "v1beta1", Cipher: encrypted.GetCipher()})
	if err != nil || string(decrypted.GetPlain()) != "ping" {
		t.Errorf("Decrypt = %v, %v", decrypted, err)
	}

	_, err = h.v1.Encrypt(t.Context(), &kmsv1.EncryptRequest{Version: "v1beta1", Plain: make([]byte, 32)})
	checkStatus(t, err, codes.FailedPrecondition, "trousseau only decrypts for KMS v1; put a provider with apiVersion v2 first in EncryptionConfiguration")

	problem = errors.New("vault is sealed, for too long")
	_, err = h.v1.Encrypt(t.Context(), &kmsv1.EncryptRequest{Version: "v1beta1", Plain: []byte("ping")})
	checkStatus(t, err, codes.Unavailable, "vault is sealed, for too long")
	_, err = h.v1.Decrypt(t.Context(), &kmsv1.DecryptRequest{Version: "v1beta1", Cipher: encrypted.GetCipher()})
	checkStatus(t, err, codes.Unavailable, "vault is sealed, for too long")
}

// TestV1IsOff checks that KMS v1 is not served unless it is asked for.
func TestV1IsOff(t *testing.T) {
	h := start(t, working(), time.Minute)
	_, err := h.v1.Decrypt(t.Context(), &kmsv1.DecryptRequest{Version: "v1beta1", Cipher: []byte("vault:v3:AAAA")})
	if got := status.Code(err); got != codes.Unimplemented {
		t.Errorf("code = %v (%v), want Unimplemented", got, err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope"

	"github.com/trousseau-io/trousseau/test/apiserver"
)

// TestV1Client calls trousseau with kube-apiserver's client of KMS v1: its health check,
// a DEK that another plugin has wrapped, and one to encrypt.
func TestV1Client(t *testing.T) {
	t.Parallel()
	vault, _ := startVault(t)
	p := startHealthy(t, vault, "--serve-v1-decrypt")
	sealed, err := dial(t, p).Encrypt(t.Context(), "u", []byte("dek"))
	if err != nil {
		t.Fatal(err)
	}
	v1, err := envelope.NewGRPCService(t.Context(), "unix://"+p.Socket(), apiserver.Timeout)
	if err != nil {
		t.Fatal(err)
	}
	checked, err := v1.Encrypt([]byte("ping"))
	if err == nil {
		_, err = v1.Decrypt(checked)
	}
	if err != nil {
		t.Errorf("the health check fails: %v", err)
	}
	if got, err := v1.Decrypt(sealed.Ciphertext); err != nil || string(got) != "dek" {
		t.Errorf("Decrypt = %q, %v", got, err)
	}
	if _, err := v1.Encrypt(make([]byte, 32)); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("Encrypt: %v, want FailedPrecondition", err)
	}
}

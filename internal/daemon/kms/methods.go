// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"context"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/seed"
)

// Status implements [kmsapi.KeyManagementServiceServer]. It answers ok with a
// key_id or with an error, never with another healthz: kube-apiserver goes on
// writing under a key_id whatever healthz says (kubernetes#138950), and only an
// error lets its write window end.
func (s *Server) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	keyID, err := s.kek.Status()
	if err != nil {
		return nil, unhealthy(err)
	}
	return &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: keyID}, nil
}

// Encrypt implements [kmsapi.KeyManagementServiceServer].
func (s *Server) Encrypt(ctx context.Context, req *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
	if len(req.GetPlaintext()) == 0 {
		return nil, invalid("plaintext is empty")
	}
	wrapped, err := s.kek.Encrypt(ctx, req.GetPlaintext())
	if err != nil {
		return nil, publish(err)
	}
	if problem := checkWrapped(wrapped); problem != "" {
		return nil, unusable(problem)
	}
	return &kmsapi.EncryptResponse{Ciphertext: wrapped.Ciphertext, KeyId: wrapped.KeyID, Annotations: wrapped.Annotations}, nil
}

// Decrypt implements [kmsapi.KeyManagementServiceServer].
func (s *Server) Decrypt(ctx context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	wrapped := seed.Wrapped{KeyID: req.GetKeyId(), Ciphertext: req.GetCiphertext(), Annotations: req.GetAnnotations()}
	if problem := checkWrapped(wrapped); problem != "" {
		return nil, invalid(problem)
	}
	plaintext, err := s.decryptOnce(ctx, wrapped)
	if err != nil {
		return nil, publish(err)
	}
	return &kmsapi.DecryptResponse{Plaintext: plaintext}, nil
}

// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"context"

	"google.golang.org/grpc/codes"
	kmsv1 "k8s.io/kms/apis/v1beta1"

	"github.com/trousseau-io/trousseau/internal/seed"
)

// v1 reads what a plugin of KMS v1 has encrypted, so that the plugin can go before
// everything is re-encrypted. It encrypts nothing.
type v1 struct {
	*Server
	kmsv1.UnsafeKeyManagementServiceServer
}

// ping is what kube-apiserver's health check of KMS v1 encrypts, and then decrypts
// (kmsPluginProbe in apiserver/pkg/server/options/encryptionconfig). A DEK has 32
// bytes. The answer is that of Status and no ciphertext, so nothing can be stored
// under it.
const ping = "ping"

// Version implements [kmsv1.KeyManagementServiceServer].
func (v *v1) Version(context.Context, *kmsv1.VersionRequest) (*kmsv1.VersionResponse, error) {
	return &kmsv1.VersionResponse{Version: "v1beta1", RuntimeName: "trousseau"}, nil
}

// Encrypt implements [kmsv1.KeyManagementServiceServer].
func (v *v1) Encrypt(ctx context.Context, req *kmsv1.EncryptRequest) (*kmsv1.EncryptResponse, error) {
	if string(req.GetPlain()) != ping {
		return nil, refuse(codes.FailedPrecondition, "trousseau only decrypts for KMS v1; put a provider with apiVersion v2 first in EncryptionConfiguration")
	}
	_, err := v.Status(ctx, nil)
	return &kmsv1.EncryptResponse{Cipher: []byte(ping)}, err
}

// Decrypt implements [kmsv1.KeyManagementServiceServer].
func (v *v1) Decrypt(ctx context.Context, req *kmsv1.DecryptRequest) (*kmsv1.DecryptResponse, error) {
	if string(req.GetCipher()) == ping {
		_, err := v.Status(ctx, nil)
		return &kmsv1.DecryptResponse{Plain: []byte(ping)}, err
	}
	wrapped := seed.OfV1(req.GetCipher())
	if problem := checkSize("ciphertext", len(wrapped.Ciphertext), 1, maxCiphertext); problem != "" {
		return nil, refuse(codes.InvalidArgument, problem)
	}
	plaintext, err := v.decryptOnce(ctx, wrapped)
	if err != nil {
		return nil, publish(err)
	}
	return &kmsv1.DecryptResponse{Plain: plaintext}, nil
}

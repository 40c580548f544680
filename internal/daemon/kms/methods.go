// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/seed"
)

// Status implements [kmsapi.KeyManagementServiceServer]. It answers ok with a
// key_id or returns an error, never another healthz: kube-apiserver goes on
// writing under a key_id whatever healthz says (kubernetes#138950), and only an
// error ends its write window. The error's reason reaches
// /readyz/kms-providers, where the operator looks first.
func (s *Server) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	keyID, err := s.kek.Status()
	if err != nil {
		return nil, refuse(codes.Unavailable, err.Error())
	}
	return &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: keyID}, nil
}

// Encrypt implements [kmsapi.KeyManagementServiceServer].
func (s *Server) Encrypt(ctx context.Context, req *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
	if len(req.GetPlaintext()) == 0 {
		return nil, refuse(codes.InvalidArgument, "plaintext is empty")
	}
	wrapped, err := s.kek.Encrypt(ctx, req.GetPlaintext())
	if err != nil {
		return nil, publish(err)
	}
	if problem := checkWrapped(wrapped); problem != "" {
		return nil, refuse(codes.Internal, problem)
	}
	return &kmsapi.EncryptResponse{Ciphertext: wrapped.Ciphertext, KeyId: wrapped.KeyID, Annotations: wrapped.Annotations}, nil
}

// Decrypt implements [kmsapi.KeyManagementServiceServer].
func (s *Server) Decrypt(ctx context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	wrapped := seed.Wrapped{KeyID: req.GetKeyId(), Ciphertext: req.GetCiphertext(), Annotations: req.GetAnnotations()}
	if problem := checkWrapped(wrapped); problem != "" {
		return nil, refuse(codes.InvalidArgument, problem)
	}
	plaintext, err := s.decryptOnce(ctx, wrapped)
	if err != nil {
		return nil, publish(err)
	}
	return &kmsapi.DecryptResponse{Plaintext: plaintext}, nil
}

// decryptOnce decrypts, sharing the work among concurrent callers with the same
// seed: kube-apiserver has no single-flight of its own, and at its start asks for
// a seed as often as there are objects under it.
//
// The work has its own context, so a caller that gives up does not fail the
// others. A shared failure is retried once, because a caller that joined late may
// still have time for another attempt.
func (s *Server) decryptOnce(ctx context.Context, wrapped seed.Wrapped) ([]byte, error) {
	identity := wrapped.Identity()
	for retried := false; ; retried = true {
		own := false
		done := s.flights.DoChan(identity, func() (any, error) {
			own = true
			work, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
			defer cancel()
			return s.shield("Decrypt", func() (any, error) { return s.kek.Decrypt(work, wrapped) })
		})
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case result := <-done:
			if result.Err != nil && !own && !retried {
				continue
			}
			plaintext, _ := result.Val.([]byte)
			return plaintext, result.Err
		}
	}
}

// fqdn is the rule of IsFullyQualifiedDomainName in
// apimachinery/pkg/util/validation: a lowercase RFC 1123 subdomain of at least
// two labels, with or without a final dot.
var fqdn = regexp.MustCompile(`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.?$`)

// checkWrapped returns why kube-apiserver would not accept, and so cannot have
// sent, a wrapped seed; "" if it would. The limits, in bytes, are those of its
// kmsv2/envelope.go.
func checkWrapped(w seed.Wrapped) string {
	size := 0
	for key, value := range w.Annotations {
		size += len(key) + len(value)
		if len(strings.TrimSuffix(key, ".")) > 253 || !fqdn.MatchString(key) {
			return "annotation key is not a fully qualified domain name"
		}
	}
	return cmp.Or(
		checkSize("ciphertext", len(w.Ciphertext), 1, maxCiphertext),
		checkSize("key_id", len(w.KeyID), 1, keyid.MaxSize),
		checkSize("annotations", size, 0, 32<<10), // annotationsMaxSize
	)
}

const maxCiphertext = 1 << 10 // encryptedDEKSourceMaxSize

func checkSize(name string, size, least, most int) string {
	switch {
	case size < least:
		return name + " is empty"
	case size > most:
		return fmt.Sprintf("%s: %d bytes exceed the limit of %d", name, size, most)
	}
	return ""
}

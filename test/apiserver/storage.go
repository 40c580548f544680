// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apiserver/pkg/storage/value"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
)

// Secret returns a v1 Secret in namespace default with one value.
func Secret(name, password string) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Data:       map[string][]byte{"password": []byte(password)},
	}
}

// etcdKey returns the key under which kube-apiserver stores a Secret. It is
// authenticated: a value moved to another key cannot be decrypted.
func etcdKey(name string) value.Context {
	return value.DefaultContext("/registry/secrets/default/" + name)
}

// Write encodes and encrypts a Secret and returns the bytes for etcd.
func (s *Server) Write(ctx context.Context, secret *corev1.Secret) ([]byte, error) {
	var encoded bytes.Buffer
	if err := s.codec.Encode(secret, &encoded); err != nil {
		return nil, fmt.Errorf("encoding Secret %s: %w", secret.Name, err)
	}
	return s.transformer.TransformToStorage(ctx, encoded.Bytes(), etcdKey(secret.Name))
}

// Read decrypts and decodes the result of Write. A stale Secret would be rewritten
// by its next update, even without a change.
func (s *Server) Read(ctx context.Context, name string, stored []byte) (secret *corev1.Secret, stale bool, err error) {
	encoded, stale, err := s.transformer.TransformFromStorage(ctx, stored, etcdKey(name))
	if err != nil {
		return nil, false, err
	}
	secret = new(corev1.Secret)
	if _, _, err := s.codec.Decode(encoded, nil, secret); err != nil {
		return nil, false, fmt.Errorf("decoding Secret %s: %w", name, err)
	}
	return secret, stale, nil
}

// Prefix returns the prefix of every value written by this server.
func (s *Server) Prefix() string { return "k8s:enc:kms:v2:" + s.provider + ":" }

// Open decodes stored bytes without decrypting them.
func (s *Server) Open(stored []byte) (*kmstypes.EncryptedObject, error) {
	rest, found := bytes.CutPrefix(stored, []byte(s.Prefix()))
	if !found {
		return nil, fmt.Errorf("stored value does not begin with %s", s.Prefix())
	}
	object := new(kmstypes.EncryptedObject)
	if err := proto.Unmarshal(rest, object); err != nil {
		return nil, fmt.Errorf("decoding what follows %s: %w", s.Prefix(), err)
	}
	return object, nil
}

// newCodec returns the codec for Secrets in etcd: "k8s\x00" and protobuf.
func newCodec() *protobuf.Serializer {
	scheme := runtime.NewScheme()
	// The only possible error is a type registered twice.
	_ = corev1.AddToScheme(scheme)
	return protobuf.NewSerializer(scheme, scheme)
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/seed"
)

// caller calls a plugin on one connection. As in kube-apiserver, each call has a
// timeout and its own uid.
type caller struct {
	kms     kmsapi.KeyManagementServiceClient
	conn    *grpc.ClientConn
	subject *subject
}

func (c *caller) close() { _ = c.conn.Close() }

func (c *caller) status(ctx context.Context) (*kmsapi.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, c.subject.timeout)
	defer cancel()
	return c.kms.Status(ctx, &kmsapi.StatusRequest{})
}

func (c *caller) encrypt(ctx context.Context, plaintext []byte) (seed.Wrapped, error) {
	ctx, cancel := context.WithTimeout(ctx, c.subject.timeout)
	defer cancel()
	resp, err := c.kms.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: plaintext, Uid: newUID()})
	return seed.Wrapped{KeyID: resp.GetKeyId(), Ciphertext: resp.GetCiphertext(), Annotations: resp.GetAnnotations()}, err
}

func (c *caller) decrypt(ctx context.Context, w seed.Wrapped) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.subject.timeout)
	defer cancel()
	resp, err := c.kms.Decrypt(ctx, decryptRequest(w))
	return resp.GetPlaintext(), err
}

func decryptRequest(w seed.Wrapped) *kmsapi.DecryptRequest {
	return &kmsapi.DecryptRequest{Ciphertext: w.Ciphertext, KeyId: w.KeyID, Annotations: w.Annotations, Uid: newUID()}
}

// invoke sends raw bytes to a method, which need not exist.
func (c *caller) invoke(ctx context.Context, method string, message []byte) (reply []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.subject.timeout)
	defer cancel()
	err = c.conn.Invoke(ctx, method, message, &reply, grpc.ForceCodec(verbatim{}))
	return reply, err
}

// sample encrypts a new seed.
func (c *caller) sample(ctx context.Context) (plaintext []byte, w seed.Wrapped, err error) {
	plaintext = c.subject.newSeed()
	w, err = c.encrypt(ctx, plaintext)
	if err != nil {
		err = fmt.Errorf("Encrypt: %s", said(err))
	}
	return plaintext, w, err
}

var errOtherBytes = errors.New("Decrypt returns other bytes than were encrypted")

// gives returns an error if w does not decrypt to plaintext.
func (c *caller) gives(ctx context.Context, w seed.Wrapped, plaintext []byte) error {
	got, err := c.decrypt(ctx, w)
	switch {
	case err != nil:
		return fmt.Errorf("Decrypt: %s", said(err))
	case !bytes.Equal(got, plaintext):
		return errOtherBytes
	}
	return nil
}

// roundTrip encrypts and decrypts a new seed, to find out whether a plugin works.
func (c *caller) roundTrip(ctx context.Context) error {
	plaintext, w, err := c.sample(ctx)
	if err != nil {
		return err
	}
	return c.gives(ctx, w, plaintext)
}

// newUID returns a random UUID, as kube-apiserver sends it.
func newUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// verbatim is a codec that sends raw bytes under protobuf's name, for messages that no
// protobuf library would produce.
type verbatim struct{}

func (verbatim) Name() string { return "proto" }

func (verbatim) Marshal(v any) ([]byte, error) {
	message, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("cannot send a %T", v)
	}
	return message, nil
}

func (verbatim) Unmarshal(data []byte, v any) error {
	reply, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("cannot receive a %T", v)
	}
	*reply = bytes.Clone(data)
	return nil
}

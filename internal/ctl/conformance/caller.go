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

// caller calls a plugin on one connection. Each call has the subject's timeout
// and a uid of its own, as kube-apiserver's have.
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

// invoke sends a message as it is to a method that need not exist.
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

var errOtherBytes = errors.New("Decrypt gives other bytes than were encrypted")

// gives reports whether w is decrypted to plaintext.
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

// roundTrip encrypts a new seed and decrypts it. It is how a check finds out
// whether a plugin still works.
func (c *caller) roundTrip(ctx context.Context) error {
	plaintext, w, err := c.sample(ctx)
	if err != nil {
		return err
	}
	return c.gives(ctx, w, plaintext)
}

// newUID is a random UUID, which is what kube-apiserver sends.
func newUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"crypto/rand"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/endpoint"
	"github.com/trousseau-io/trousseau/internal/seed"
)

// subject is the plugin that is checked.
type subject struct {
	endpoint endpoint.Endpoint
	timeout  time.Duration
	ledger   ledger
	// main is the connection that most checks use, as kube-apiserver has one for
	// all its calls.
	main *caller
}

func newSubject(ctx context.Context, o Options) (*subject, error) {
	probe, err := o.Endpoint.Dial(ctx)
	if err != nil {
		return nil, err
	}
	_ = probe.Close()
	s := &subject{endpoint: o.Endpoint, timeout: o.Timeout}
	main, err := s.connect()
	if err != nil {
		return nil, err
	}
	s.main = main
	return s, nil
}

func (s *subject) close() { s.main.close() }

// connect returns a caller with its own connection, configured as in kube-apiserver
// (NewGRPCService in kmsv2/grpc_service.go). It connects at the first call. More
// overrides the options.
func (s *subject) connect(more ...grpc.DialOption) (*caller, error) {
	conn, err := grpc.NewClient("passthrough:///kms", append([]grpc.DialOption{
		grpc.WithAuthority("localhost"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.endpoint.Dial(ctx) }),
		grpc.WithChainUnaryInterceptor(s.ledger.intercept),
	}, more...)...)
	if err != nil {
		return nil, err
	}
	return &caller{kms: kmsapi.NewKeyManagementServiceClient(conn), conn: conn, subject: s}, nil
}

// onNewConnection runs a check on a new connection.
func (s *subject) onNewConnection(check func(*caller) outcome, more ...grpc.DialOption) outcome {
	c, err := s.connect(more...)
	if err != nil {
		return broken("", "cannot connect: %v", err)
	}
	defer c.close()
	return check(c)
}

// newSeed returns a plaintext as kube-apiserver sends it: 32 random bytes.
func (s *subject) newSeed() []byte { return s.newPlaintext(32) }

// newPlaintext returns random bytes, and records them to look for them in errors.
func (s *subject) newPlaintext(size int) []byte {
	plaintext := make([]byte, size)
	rand.Read(plaintext)
	s.ledger.sent(plaintext)
	return plaintext
}

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

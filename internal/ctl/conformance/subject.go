// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"crypto/rand"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/endpoint"
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

// SPDX-License-Identifier: Apache-2.0

// Package kms serves the Kubernetes KMS v2 contract over any [KEK], and the half of
// KMS v1 that reads: what kube-apiserver may send and what it accepts back, deadlines,
// panics, and the gRPC code for each kind of failure.
//
// The rules are those of KEP-3299 and of kube-apiserver's own client,
// apiserver/pkg/storage/value/encrypt/envelope/kmsv2.
package kms

import (
	"cmp"
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	kmsv1 "k8s.io/kms/apis/v1beta1"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/seed"
)

// KEK wraps and unwraps DEK seeds. Its methods are called concurrently.
type KEK interface {
	// Status returns the key_id to announce, or why there is none. It must not
	// block.
	Status() (keyID string, err error)
	// Encrypt wraps plaintext.
	Encrypt(ctx context.Context, plaintext []byte) (seed.Wrapped, error)
	// Decrypt returns the plaintext of what Encrypt wrapped, or a plugin of KMS v1 with
	// the same key: then key_id is empty.
	Decrypt(ctx context.Context, wrapped seed.Wrapped) (plaintext []byte, err error)
}

// Options configure a [Server].
type Options struct {
	// KEK wraps and unwraps the seeds.
	KEK KEK
	// RequestTimeout bounds a request; a shorter deadline of the caller wins. Keep
	// it below the timeout in EncryptionConfiguration, 3s by default, so that the
	// caller sees our error instead of DeadlineExceeded.
	RequestTimeout time.Duration
	// DecryptV1 also decrypts what a plugin of KMS v1 has encrypted with the key.
	DecryptV1 bool
	// Registerer registers the metrics; nil means none.
	Registerer prometheus.Registerer
	// Logger may be nil, which discards the log.
	Logger *zap.Logger
}

// maxStreams bounds the requests of one connection; kube-apiserver queues more. At
// its start it may ask for a thousand seeds at once, and the more are here
// together, the more share one call to Vault.
const maxStreams = 1024

// Server answers KMS v2 requests.
type Server struct {
	kek     KEK
	timeout time.Duration
	v1      bool
	log     *zap.Logger
	metrics metrics
	flights singleflight.Group
	crowd   *crowd
	grpc    atomic.Pointer[grpc.Server] // of the last Serve

	kmsapi.UnsafeKeyManagementServiceServer
}

// New makes a Server and registers its metrics.
func New(opts Options) *Server {
	log := cmp.Or(opts.Logger, zap.NewNop())
	return &Server{
		kek:     opts.KEK,
		timeout: opts.RequestTimeout,
		v1:      opts.DecryptV1,
		log:     log,
		metrics: newMetrics(opts.Registerer),
		crowd:   &crowd{log: log},
	}
}

func (s *Server) transport() *grpc.Server {
	t := grpc.NewServer(
		grpc.InTapHandle(s.arrive),
		grpc.UnaryInterceptor(s.intercept),
		grpc.MaxConcurrentStreams(maxStreams),
		// 1 KiB each of ciphertext and key_id, 32 KiB of annotations, and the rest.
		grpc.MaxRecvMsgSize(40<<10),
		// Kept goroutines keep their grown stacks: growing a new one took a tenth of
		// a request's time.
		grpc.NumStreamWorkers(32),
		// kube-apiserver's headers are a few hundred bytes.
		grpc.MaxHeaderListSize(8<<10),
		// How much of a request, and of a whole connection, may be in transit:
		// HTTP/2's default and grpc's minimum. By default, grpc lets a peer raise it
		// to 16 MiB.
		grpc.StaticStreamWindowSize(64<<10-1),
		grpc.StaticConnWindowSize(64<<10-1),
		// Enough for a usual request. The read buffer lives as long as its connection.
		grpc.ReadBufferSize(4<<10),
		grpc.WriteBufferSize(4<<10),
		// How long a connection may take to speak HTTP/2.
		grpc.ConnectionTimeout(5*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			// kube-apiserver asks for Status every minute.
			MaxConnectionIdle: 10 * time.Minute,
			// A peer that is silent for Time is sent a ping, to answer within Timeout.
			Time:    time.Minute,
			Timeout: 20 * time.Second,
		}),
	)
	kmsapi.RegisterKeyManagementServiceServer(t, s)
	if s.v1 {
		kmsv1.RegisterKeyManagementServiceServer(t, &v1{Server: s})
	}
	return t
}

// Serve serves on l until [Server.Shutdown], then returns nil. It closes l. Once it
// has returned, it may be called again, with another listener.
func (s *Server) Serve(l net.Listener) error {
	t := s.transport()
	s.grpc.Store(t)
	return t.Serve(&listener{l, s.crowd})
}

// Shutdown asks callers to reconnect elsewhere, lets open requests finish until
// ctx is done, and then cuts them. It reports whether all finished. Before Serve it
// does nothing.
func (s *Server) Shutdown(ctx context.Context) bool {
	t := s.grpc.Load()
	if t == nil {
		return true
	}
	stop := context.AfterFunc(ctx, t.Stop)
	t.GracefulStop()
	return stop()
}

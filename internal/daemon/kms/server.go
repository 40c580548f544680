// SPDX-License-Identifier: Apache-2.0

// Package kms is the Kubernetes KMS v2 contract over any [KEK]: what
// kube-apiserver may send and what it accepts back, deadlines, panics, and the
// gRPC code for each kind of failure.
//
// The rules are those of KEP-3299 and of kube-apiserver's own client,
// apiserver/pkg/storage/value/encrypt/envelope/kmsv2.
package kms

import (
	"context"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/seed"
)

// KEK wraps and unwraps DEK seeds. Its methods are called concurrently.
type KEK interface {
	// Status returns the key_id to announce, or why none can be relied on. It
	// must not block.
	Status() (keyID string, err error)
	// Encrypt wraps plaintext.
	Encrypt(ctx context.Context, plaintext []byte) (seed.Wrapped, error)
	// Decrypt returns the plaintext of what Encrypt wrapped.
	Decrypt(ctx context.Context, wrapped seed.Wrapped) (plaintext []byte, err error)
}

// Options are what a [Server] is made of.
type Options struct {
	// KEK does the work.
	KEK KEK
	// RequestTimeout bounds a request; a shorter deadline of the caller's wins.
	// It should be below the timeout that EncryptionConfiguration gives, 3s by
	// default, so that the caller sees our error instead of its own.
	RequestTimeout time.Duration
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
	// Logger takes the log; nil discards it.
	Logger *zap.Logger
}

const (
	// maxMessage bounds a request: 1 KiB each of ciphertext and key_id and
	// 32 KiB of annotations fit, with room for the rest.
	maxMessage = 40 << 10
	// maxStreams bounds the requests of one connection; kube-apiserver waits
	// with what is beyond. At its start it may ask for a thousand seeds at once,
	// and the more of them are here together, the more share a call of Vault.
	maxStreams = 1024
	// workers is how many goroutines are kept for requests. They keep the stacks
	// that a request has grown: growing a new one took a tenth of its time.
	workers = 32
	// maxHeaders bounds the headers of a request; kube-apiserver's are a few
	// hundred bytes.
	maxHeaders = 8 << 10
	// window is how much of a request, and of all of a connection, may be on its
	// way: HTTP/2's default and grpc's least. Left alone, grpc lets a peer raise
	// it to 16 MiB.
	window = 64<<10 - 1
	// buffer is for reading from a connection and for writing to it, enough for
	// a usual request. The reading half lasts as long as the connection.
	buffer = 4 << 10
	// handshake bounds how long a connection may take to speak HTTP/2.
	handshake = 5 * time.Second
	// idle is after how long without a request a connection is closed, politely.
	// kube-apiserver asks for the Status each minute.
	idle = 10 * time.Minute
	// A peer from which nothing has come for quiet is asked for a sign of life,
	// and given signTime for that.
	quiet    = time.Minute
	signTime = 20 * time.Second
)

// Server answers KMS v2 requests.
type Server struct {
	kek     KEK
	timeout time.Duration
	log     *zap.Logger
	metrics metrics
	flights singleflight.Group
	crowd   *crowd
	grpc    *grpc.Server

	kmsapi.UnsafeKeyManagementServiceServer
}

// New makes a Server and registers its metrics.
func New(opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = zap.NewNop()
	}
	if opts.Registerer == nil {
		opts.Registerer = prometheus.NewRegistry()
	}
	s := &Server{
		kek:     opts.KEK,
		timeout: opts.RequestTimeout,
		log:     opts.Logger,
		metrics: newMetrics(opts.Registerer),
		crowd:   &crowd{log: opts.Logger},
	}
	s.grpc = grpc.NewServer(
		grpc.InTapHandle(s.begin),
		grpc.UnaryInterceptor(s.arrive),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.NumStreamWorkers(workers),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		grpc.ReadBufferSize(buffer),
		grpc.WriteBufferSize(buffer),
		grpc.ConnectionTimeout(handshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle, Time: quiet, Timeout: signTime}),
	)
	kmsapi.RegisterKeyManagementServiceServer(s.grpc, s)
	return s
}

// Serve answers on l until [Server.Shutdown], and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error { return s.grpc.Serve(&listener{l, s.crowd}) }

// Shutdown tells callers to connect anew elsewhere, lets requests under way
// finish until ctx is done, and then cuts them. It reports whether all finished.
func (s *Server) Shutdown(ctx context.Context) bool {
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.grpc.GracefulStop()
	}()
	select {
	case <-drained:
		return true
	case <-ctx.Done():
		s.grpc.Stop()
		<-drained
		return false
	}
}

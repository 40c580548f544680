// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"context"
	"fmt"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	kmsv1 "k8s.io/kms/apis/v1beta1"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/keyid"
)

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	panics   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	auto := promauto.With(reg)
	return metrics{
		requests: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "trousseau_kms_requests_total",
			Help: "KMS requests, by method and gRPC code.",
		}, []string{"method", "code"}),
		duration: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "trousseau_kms_request_duration_seconds",
			Help:    "Duration of KMS requests in seconds, by method.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}, []string{"method"}),
		panics: auto.NewCounter(prometheus.CounterOpts{
			Name: "trousseau_kms_panics_total",
			Help: "Panics while handling KMS requests.",
		}),
	}
}

// arrival is a request that has begun, and may never be complete.
type arrival struct {
	conn    *conn
	refused bool
	// stop cancels the cleanup callback; it returns false if that has already run.
	stop func() bool
}

type arrivalKey struct{}

// arrive runs before grpc waits for a request's message. Without the deadline set
// here, grpc would wait until the connection ends.
//
// It never returns an error, because then grpc (v1.85, operateHeaders) does not
// release the timer of the caller's own deadline, which may be years away.
func (s *Server) arrive(ctx context.Context, _ *tap.Info) (context.Context, error) {
	p, _ := peer.FromContext(ctx)
	a := arrival{conn: p.Addr.(address).conn}
	limit := s.timeout
	if a.refused = !s.crowd.admit(a.conn); a.refused {
		limit = min(limit, 50*time.Millisecond) // to arrive whole and be refused
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	a.stop = context.AfterFunc(ctx, func() {
		cancel()
		if !a.refused {
			s.crowd.release(a.conn)
		}
	})
	return context.WithValue(ctx, arrivalKey{}, a), nil
}

// intercept wraps every complete request: its share, deadline, panic, metrics and
// log line.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	a := ctx.Value(arrivalKey{}).(arrival)
	if a.stop() && !a.refused {
		defer s.crowd.release(a.conn)
	}
	s.crowd.recognize(a.conn)
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	method := path.Base(info.FullMethod)
	if _, ok := info.Server.(*v1); ok {
		method += "V1"
	}
	start := time.Now()
	resp, err := s.shield(method, func() (any, error) {
		if a.refused {
			return nil, refuse(codes.ResourceExhausted, "too many concurrent requests")
		}
		return handler(ctx, req)
	})
	took := time.Since(start)
	code := status.Code(err)
	s.metrics.requests.WithLabelValues(method, code.String()).Inc()
	s.metrics.duration.WithLabelValues(method).Observe(took.Seconds())
	s.logRequest(method, req, resp, code, took, err)
	return resp, err
}

// shield turns a panic of f into an error, because one bad request must not end
// the plugin. The panic's value is not logged: it may quote the request.
func (s *Server) shield(method string, f func() (any, error)) (result any, err error) {
	defer func() {
		if recover() == nil {
			return
		}
		s.metrics.panics.Inc()
		s.log.Error("request panicked", zap.String("method", method), zap.Stack("stack"))
		err = &failure{status.New(codes.Internal, "internal error; see trousseau's log"), fmt.Errorf("%s panicked", method)}
	}()
	return f()
}

// logRequest writes one line per Encrypt and Decrypt, at debug level unless it
// failed. Status is called several times a minute and is not logged; changes of
// its answer are logged where they happen.
func (s *Server) logRequest(method string, req, resp any, code codes.Code, took time.Duration, err error) {
	level := zap.DebugLevel
	if err != nil {
		level = zap.WarnLevel
	}
	entry := s.log.Check(level, "request")
	if entry == nil {
		return
	}
	var uid, keyID string
	switch r := req.(type) {
	case *kmsapi.EncryptRequest:
		encrypted, _ := resp.(*kmsapi.EncryptResponse)
		uid, keyID = r.GetUid(), encrypted.GetKeyId()
	case *kmsapi.DecryptRequest:
		uid, keyID = r.GetUid(), r.GetKeyId()
	case *kmsv1.EncryptRequest, *kmsv1.DecryptRequest: // have neither
	default:
		return
	}
	fields := []zap.Field{
		zap.String("method", method),
		zap.String("uid", fmt.Sprintf("%.64s", uid)), // bounded; kube-apiserver's are UUIDs
		zap.Stringer("code", code),
		zap.Duration("duration", took),
		zap.Error(err),
	}
	if keyID != "" {
		fields = append(fields, zap.String("key_id_hash", keyid.Hash(keyID)))
	}
	entry.Write(fields...)
}

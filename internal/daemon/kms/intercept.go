// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"context"
	"fmt"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/keyid"
)

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	panics   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trousseau_kms_requests_total",
			Help: "KMS v2 requests, by method and gRPC code.",
		}, []string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "trousseau_kms_request_duration_seconds",
			Help:    "Duration of KMS v2 requests in seconds, by method.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}, []string{"method"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trousseau_kms_panics_total",
			Help: "Panics while handling KMS v2 requests.",
		}),
	}
	reg.MustRegister(m.requests, m.duration, m.panics)
	return m
}

// intercept is around every request: deadline, panic, metrics and log line.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if c, ok := connOf(ctx); ok {
		s.crowd.recognize(c)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	method := path.Base(info.FullMethod)
	start := time.Now()
	resp, err := s.handleShielded(ctx, req, method, handler)
	took := time.Since(start)
	code := status.Code(err)
	s.metrics.requests.WithLabelValues(method, code.String()).Inc()
	s.metrics.duration.WithLabelValues(method).Observe(took.Seconds())
	s.logRequest(method, req, resp, code, took, err)
	return resp, err
}

func (s *Server) handleShielded(ctx context.Context, req any, method string, handler grpc.UnaryHandler) (resp any, err error) {
	defer s.rescue(method, &err)
	return handler(ctx, req)
}

// rescue turns a panic into an error: one bad request must not take the
// control plane's plugin down. The panic's value is not logged, because it may
// quote the request.
func (s *Server) rescue(method string, err *error) {
	if recover() == nil {
		return
	}
	s.metrics.panics.Inc()
	s.log.Error("a request panicked", zap.String("method", method), zap.Stack("stack"))
	*err = &failure{status.New(codes.Internal, "internal error; see trousseau's log"), fmt.Errorf("%s panicked", method)}
}

// logRequest writes one line per Encrypt and Decrypt, for debugging unless it
// failed. Status is called several times a minute and is silent; what it would
// say is logged when it changes.
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
		uid = r.GetUid()
		if resp, ok := resp.(*kmsapi.EncryptResponse); ok {
			keyID = resp.GetKeyId()
		}
	case *kmsapi.DecryptRequest:
		uid, keyID = r.GetUid(), r.GetKeyId()
	default:
		return
	}
	fields := []zap.Field{
		zap.String("method", method),
		zap.String("uid", shortened(uid)),
		zap.Stringer("code", code),
		zap.Duration("duration", took),
	}
	if keyID != "" {
		fields = append(fields, zap.String("key_id_hash", keyid.Hash(keyID)))
	}
	if err != nil {
		fields = append(fields, zap.Error(err))
	}
	entry.Write(fields...)
}

// shortened bounds what a caller can write into the log; kube-apiserver's uids
// are UUIDs.
func shortened(uid string) string {
	const longest = 64
	if len(uid) > longest {
		return uid[:longest] + "…"
	}
	return uid
}

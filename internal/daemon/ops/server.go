// SPDX-License-Identifier: Apache-2.0

package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// retry is the interval at which Serve tries an address that is not available. During a takeover the predecessor holds
// it for a moment.
const retry = time.Second

// Options say what the ops endpoints show and where they are served.
type Options struct {
	// Addr is the TCP address that Listen uses, such as "127.0.0.1:8095"; port 0 picks a free one, and "" serves nothing.
	// There is no authentication. Handler ignores Addr.
	Addr string
	// Registry is what /metrics shows; nil shows nothing. Handler adds the metric of its own errors to it.
	Registry *prometheus.Registry
	// Ready are the checks of /readyz, in this order. None means ready.
	Ready []Check
	// Logger may be nil, which discards the log.
	Logger *zap.Logger
}

func (o Options) withDefaults() Options {
	o.Registry = cmp.Or(o.Registry, prometheus.NewRegistry())
	o.Logger = cmp.Or(o.Logger, zap.NewNop())
	return o
}

// Server serves the ops endpoints. KMS works without them, so their failures are only logged.
type Server struct {
	options  Options
	listener net.Listener // nil while the address is not available
}

// Listen listens on o.Addr. If that fails, it logs the reason, and Serve tries again. ctx bounds the lookup of a host name.
func Listen(ctx context.Context, o Options) *Server {
	s := &Server{options: o.withDefaults()}
	if err := s.listen(ctx); err != nil {
		s.options.Logger.Error("ops endpoints unavailable, retrying; KMS is unaffected",
			zap.Error(fmt.Errorf("--ops-addr: %w", err)), zap.Duration("retry", retry))
	}
	return s
}

func (s *Server) listen(ctx context.Context) (err error) {
	if s.options.Addr != "" {
		s.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", s.options.Addr)
	}
	return err
}

// Serve serves until ctx is done, as soon as the address is available. Then it lets open requests finish for at most a
// second and closes the listener. Call it once.
func (s *Server) Serve(ctx context.Context) {
	if s.options.Addr == "" {
		return
	}
	log := s.options.Logger
	for s.listener == nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
		if s.listen(ctx) == nil {
			log.Info("ops endpoints available")
		}
	}
	server := &http.Server{
		Handler:           Handler(s.options),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          zap.NewStdLog(log.Named("http")),
	}
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(closed)
		// A scraper must not delay the end of the process.
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(bound) != nil {
			_ = server.Close()
		}
	})
	if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		log.Error("ops endpoints stopped; KMS is unaffected", zap.Error(err))
		return
	}
	<-closed
}

// SPDX-License-Identifier: Apache-2.0

package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// retry is the interval at which Serve tries an address that is not available. During a takeover the predecessor holds
// it for a moment.
const retry = time.Second

// Options say what the ops endpoints show and where they are served.
type Options struct {
	// Addr is what Listen uses: a TCP address such as "127.0.0.1:8095", where port 0 picks a free one, or the absolute path
	// of a unix socket, where a file that is left there is replaced. "" serves nothing. There is no authentication.
	// Handler ignores Addr.
	Addr string
	// Registry is what /metrics shows; nil shows nothing. Handler adds the metric of its own errors to it.
	Registry *prometheus.Registry
	// Started and Ready are the checks of /startupz and /readyz, in this order. None means started, or ready.
	Started, Ready []Check
	// Logger may be nil, which discards the log.
	Logger *zap.Logger
}

// At returns o with another address.
func (o Options) At(addr string) Options {
	o.Addr = addr
	return o
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
			zap.Error(err), zap.Duration("retry", retry))
	}
	return s
}

func (s *Server) listen(ctx context.Context) (err error) {
	flag, network, addr := "--ops-addr", "tcp", s.options.Addr
	switch {
	case addr == "":
		return nil
	case strings.HasPrefix(addr, "/"):
		flag, network = "--health-addr", "unix"
		err = removeSocket(addr)
	}
	if err == nil {
		s.listener, err = new(net.ListenConfig).Listen(ctx, network, addr)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return nil
}

// removeSocket removes what a process that was killed has left at path. Anything but a socket stays.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil
	}
	return cmp.Or(err, os.Remove(path))
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

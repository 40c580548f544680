// SPDX-License-Identifier: Apache-2.0

package ops

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// shutdownWait is how long Serve lets requests finish. The pages answer in milliseconds, and whoever stops the process
// should not wait for a scraper.
const shutdownWait = time.Second

// Server is the pages on a TCP port of their own.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// New listens on o.Addr and returns a Server for Serve to run. An address that cannot be had is for the caller to judge:
// the process's real work need not depend on this page. ctx bounds the lookup of a host name in o.Addr.
func New(ctx context.Context, o Options) (*Server, error) {
	o = o.withDefaults()
	if o.Addr == "" {
		return nil, errors.New("ops address is empty; name one such as 127.0.0.1:8095")
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("ops address %s is taken; free it or choose another: %w", o.Addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on ops address %s: %w", o.Addr, err)
	}
	return &Server{
		listener: listener,
		http: &http.Server{
			Handler:           Handler(o),
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       5 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       time.Minute,
			MaxHeaderBytes:    8 << 10,
			ErrorLog:          zap.NewStdLog(o.Logger.Named("http")),
		},
	}, nil
}

// Addr is the address listened on, with the port that was picked for port 0.
func (s *Server) Addr() net.Addr {
	return s.listener.Addr()
}

// Serve answers until ctx is done, then lets requests finish for at most a second, closes the listener and returns nil.
// It returns early, with the reason, only when the listener breaks. It is called once.
func (s *Server) Serve(ctx context.Context) error {
	stopped := make(chan error, 1)
	go func() { stopped <- s.http.Serve(s.listener) }()
	select {
	case err := <-stopped:
		return fmt.Errorf("serving ops on %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}

	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
	defer cancel()
	if err := s.http.Shutdown(bound); err != nil {
		// Whoever is still connected after the bound is cut off; nothing here is worth waiting for.
		_ = s.http.Close()
	}
	<-stopped
	return nil
}

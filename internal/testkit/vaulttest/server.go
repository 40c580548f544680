// SPDX-License-Identifier: Apache-2.0

// Package vaulttest is a stateful fake of HashiCorp Vault, for tests, demos and benchmarks.
//
// It serves Vault's HTTP API over real HTTP(S) and keeps state: transit keys of any type with versions, tokens
// with TTLs, parents and policies, auth methods, and a small KV v2. Administrator requests can mount engines and
// auth methods, and write policies and Kubernetes roles. Status codes and error texts are those of Vault 1.21:
// package vaultsuite checks them against the real server. Faults ([Fault]) modify the answers, and counters report
// the received requests.
//
// Time comes from [Options.Now] and [Server.Advance], so a test can make a token expire without waiting;
// [Server.RoundTripper] reaches the fake without a network, for use inside a testing/synctest bubble.
package vaulttest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
)

// Options configures a Server. The zero value is a plain-HTTP Vault on a free port of 127.0.0.1.
type Options struct {
	// Now is the clock for token expiry and key version dates; nil means time.Now. It is ignored with Join: a
	// cluster has one clock.
	Now func() time.Time

	// Addr is the IPv4 address to listen on; empty means "127.0.0.1:0". The port stays reserved until Close, so that
	// Start can listen on it again after Stop.
	Addr string

	// TLS makes the server speak HTTPS, HTTP/2 included, with a certificate from its own CA (see CAPEM).
	TLS bool

	// Names are additional DNS names in the server certificate, besides localhost and 127.0.0.1.
	Names []string

	// ClientCert refuses a TLS handshake without a certificate from the CA of ClientCertPEM. Needs TLS.
	ClientCert bool

	// InProcess starts no listener: the server is reached through RoundTripper or Handler only. It is needed in a
	// testing/synctest bubble, where a goroutine blocked in Accept would keep time from advancing.
	InProcess bool

	// Join makes the new server another node of that server's cluster. Keys, tokens, policies, auth methods, secrets
	// and the CA of client certificates are shared; each node has its own address, faults, counts, lag and seal.
	Join *Server
}

// Server is one node of a fake Vault. All methods are safe for concurrent use. They panic if a required key, mount
// or role does not exist, because the test is then wrong.
type Server struct {
	counters
	faults

	store   *store
	forward forwarder // set for a Proxy; nil for Vault itself
	options Options
	pki     *pki           // nil without TLS
	port    *loopback.Port // nil when InProcess

	sealed        atomic.Bool
	uninitialized atomic.Bool
	standby       atomic.Bool
	drSecondary   atomic.Bool
	lag           atomic.Int64

	mu       sync.Mutex
	http     *http.Server  // nil while stopped or InProcess
	listener net.Listener  // nil while stopped
	down     chan struct{} // closed by Stop to release hanging requests
	closed   bool
	serving  sync.WaitGroup
}

// New starts a Vault with a root token and an empty transit engine at "transit/" and KV v2 at "secret/".
// The caller must Close it.
func New(options Options) (*Server, error) { return newServer(options, nil) }

// newServer starts a server that answers with forward, or as Vault if that is nil.
func newServer(options Options, forward forwarder) (*Server, error) {
	if options.ClientCert && !options.TLS {
		return nil, fmt.Errorf("starting fake vault: ClientCert needs TLS")
	}
	s := &Server{options: options, forward: forward, down: make(chan struct{})}
	if options.Join != nil {
		s.store = options.Join.store
	} else {
		s.store = newStore(options.Now)
	}
	if options.TLS {
		var err error
		if s.pki, err = s.store.newPKI(options); err != nil {
			return nil, fmt.Errorf("starting fake vault: %w", err)
		}
	}
	if options.InProcess {
		return s, nil
	}
	port, err := loopback.Reserve(options.Addr)
	if err != nil {
		return nil, fmt.Errorf("starting fake vault: %w", err)
	}
	s.port = port
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.up(); err != nil {
		port.Release()
		return nil, fmt.Errorf("starting fake vault: %w", err)
	}
	return s, nil
}

// URL returns the server's address (scheme, host and port). It never changes.
func (s *Server) URL() string {
	if s.options.TLS {
		return "https://" + s.Addr()
	}
	return "http://" + s.Addr()
}

// Addr returns the listen address (host:port). For an in-process server it is a name that does not resolve.
func (s *Server) Addr() string {
	if s.port == nil {
		return "vault.invalid:8200"
	}
	return s.port.Addr
}

// Stop simulates the end of the process: it closes the listener and all connections, and aborts running requests.
// State is kept. It does not wait for handlers to end (see WaitIdle), so an Intercept may call it. Stop is
// idempotent.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}

// Start restarts a stopped server on the same address with all its state. The seal state is kept too: call Seal
// first to simulate a Vault without auto-unseal. Start does nothing if the server is running.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.down:
		s.down = make(chan struct{})
	default:
	}
	return s.up()
}

// Close stops the server permanently and waits a few seconds at most for its goroutines to end.
func (s *Server) Close() {
	s.mu.Lock()
	wasClosed := s.closed
	s.closed = true
	s.stop()
	s.mu.Unlock()
	if wasClosed {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	// Only a blocked Intercept can outlast this; it does not matter after the test.
	_ = s.WaitConnections(ctx, 0)
	_ = s.WaitIdle(ctx)
	if s.port != nil {
		s.port.Release()
	}
}

// up starts the listener if it should be running and is not. The caller holds s.mu.
func (s *Server) up() error {
	switch {
	case s.closed:
		return fmt.Errorf("listening on %s: server is closed", s.Addr())
	case s.port == nil || s.listener != nil || s.isDown():
		return nil
	}
	listener, err := net.Listen("tcp4", s.port.Addr)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", s.port.Addr, err)
	}
	if s.http == nil {
		s.http = s.newHTTPServer()
	}
	s.listener = listener
	server := s.http
	s.serving.Go(func() {
		// Serve always returns an error; here it can only be "closed", caused by stop or stopListening.
		if s.pki != nil {
			_ = server.ServeTLS(listener, "", "")
		} else {
			_ = server.Serve(listener)
		}
	})
	return nil
}

func (s *Server) newHTTPServer() *http.Server {
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		ConnState:         s.connState,
		ConnContext:       withConn,
		// A client that refuses our certificate is expected in tests; do not log it.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	if s.pki != nil {
		server.TLSConfig = &tls.Config{
			MinVersion:         tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.pki.config(), nil },
		}
	}
	return server
}

func (s *Server) stopListening() {
	if s.listener != nil {
		_ = s.listener.Close()
		s.listener = nil
	}
}

func (s *Server) stop() {
	if s.isDown() {
		return
	}
	close(s.down)
	s.stopListening()
	if s.http == nil {
		return
	}
	_ = s.http.Close()
	s.serving.Wait()
	// A connection accepted just before the first Close may have been missed; there are no further ones.
	_ = s.http.Close()
	s.http = nil
}

// isDown reports whether Stop was called last. The caller holds s.mu.
func (s *Server) isDown() bool {
	select {
	case <-s.down:
		return true
	default:
		return false
	}
}

// stopped returns the channel that Stop closes.
func (s *Server) stopped() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

// reachable reports whether a new connection would be accepted.
func (s *Server) reachable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.isDown() && !s.closed
}

// Start is New for tests: it fails the test on error and closes the server at the end of the test. Pass at most
// one Options.
func Start(t testing.TB, options ...Options) *Server {
	t.Helper()
	if len(options) > 1 {
		t.Fatal("vaulttest.Start takes at most one Options")
	}
	var o Options
	if len(options) == 1 {
		o = options[0]
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// StartProxy is NewProxy for tests: it fails the test on error and closes the proxy at the end of the test.
func StartProxy(t testing.TB, upstream *Server, options ProxyOptions) *Proxy {
	t.Helper()
	p, err := NewProxy(upstream, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// Version is the version in sys/health.
const Version = "1.21.0"

// Seal seals this node: everything but sys/health and sys/seal-status answers 503.
func (s *Server) Seal() { s.sealed.Store(true) }

// Unseal undoes Seal.
func (s *Server) Unseal() { s.sealed.Store(false) }

// SetInitialized sets whether the node has been initialized; a new node is. An uninitialized node answers like a
// sealed one, except that sys/health answers 501.
func (s *Server) SetInitialized(initialized bool) { s.uninitialized.Store(!initialized) }

// SetStandby makes sys/health report a standby (429). The node keeps serving, like a standby that forwards
// requests to the active node.
func (s *Server) SetStandby(standby bool) { s.standby.Store(standby) }

// SetDRSecondary makes this node one of a disaster recovery secondary, which only Vault Enterprise has: everything but
// sys/health (472) and sys/seal-status answers 400, logins included.
func (s *Server) SetDRSecondary(secondary bool) { s.drSecondary.Store(secondary) }

// SetLag makes this node answer as if the last n rotations of every key had not reached it, like an eventually
// consistent standby. It reports and encrypts with the older version, and refuses ciphertexts of newer versions.
// It never lags below version 1 or min_decryption_version.
func (s *Server) SetLag(n int) { s.lag.Store(int64(n)) }

// status answers sys/health and sys/seal-status, which need no token and work when sealed.
func (s *Server) status(rt route, r *http.Request) rendered {
	if rt.namespace != "" {
		// Paths that exist in the root namespace only.
		return refuse(http.StatusNotFound, wrapped("unsupported path")).render()
	}
	initialized := !s.uninitialized.Load()
	sealed := s.sealed.Load() || !initialized
	if rt.op == OpSealStatus {
		return render(http.StatusOK, map[string]any{
			"type": "shamir", "initialized": initialized, "sealed": sealed, "t": 1, "n": 1, "progress": 0, "nonce": "",
			"version": Version, "build_date": "2025-10-21T19:33:13Z", "migration": false, "recovery_seal": false,
			"storage_type": "inmem",
		})
	}
	query := r.URL.Query()
	code, what, replication := http.StatusOK, "activecode", "disabled"
	if s.drSecondary.Load() {
		replication = "secondary"
	}
	switch {
	case !initialized:
		code, what = http.StatusNotImplemented, "uninitcode"
	case sealed:
		code, what = http.StatusServiceUnavailable, "sealedcode"
	case s.drSecondary.Load():
		code, what = 472, "drsecondarycode"
	case s.standby.Load():
		code, what = http.StatusTooManyRequests, "standbycode"
	}
	if query.Has(what) {
		n, err := strconv.Atoi(query.Get(what))
		if err != nil || n < 200 || n > 599 {
			return refuse(http.StatusBadRequest).render()
		}
		code = n
	}
	return render(code, map[string]any{
		"initialized": initialized, "sealed": sealed, "standby": sealed || s.standby.Load(), "performance_standby": false,
		"replication_performance_mode": "disabled", "replication_dr_mode": replication,
		"server_time_utc": s.store.now().Unix(), "version": Version, "enterprise": false,
		"cluster_name": "vault-cluster-test", "cluster_id": "00000000-0000-0000-0000-000000000000",
		"echo_duration_ms": 0, "clock_skew_ms": 0, "replication_primary_canary_age_ms": 0,
	})
}

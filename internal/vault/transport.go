// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// idleConns is how many connections are kept for the next burst.
const idleConns = 128

// Variables, because tests wait longer: the machine that runs them may stall.
var (
	// dialTimeout leaves time for a second attempt within KMS v2's default
	// deadline of 3 s.
	dialTimeout = time.Second
	// handshakeTimeout is longer, because a handshake takes CPU time on both
	// sides, and must succeed on an overloaded node too.
	handshakeTimeout = 2 * time.Second
)

// guard is the way to one node. It bounds responses, and drops idle connections
// that may be dead: when a firewall or NAT has lost its state, packets vanish, and
// each call on a pooled connection would wait until its deadline.
//
// A timeout counts against the idle connections only if the node has answered no
// call since this one began. A slow node answers some calls, and keeps its
// connections. If it answers none, there is little to lose: a connection returns
// to the pool only with an answer.
//
// It deliberately has no CloseIdleConnections method: go-retryablehttp calls that
// after every failed request, and one sealed Vault would cost every connection of
// the pool.
type guard struct {
	next    http.RoundTripper
	drop    func() // closes the idle connections
	answers atomic.Uint64
}

// newGuard makes the guard of one node. It speaks HTTP/1.1 over a pool of
// connections. For transit's messages of a few hundred bytes, the pool is a fifth
// faster than one HTTP/2 connection at 1 and at 16 callers and no slower at 128
// (BenchmarkTransport), and a dead connection stalls one call instead of all.
// There is no proxy, because the environment does not configure the daemon.
func newGuard(cfg Config) (*guard, error) {
	if cfg.Transport != nil {
		return &guard{next: cfg.Transport, drop: func() {}}, nil
	}
	tlsConfig, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	g := &guard{}
	transport := &http.Transport{
		DialContext:         g.dial,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: handshakeTimeout,
		MaxIdleConns:        idleConns,
		MaxIdleConnsPerHost: idleConns,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
	}
	g.next, g.drop = transport, transport.CloseIdleConnections
	return g, nil
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	asked := g.answers.Load()
	resp, err := g.next.RoundTrip(req)
	switch {
	case err == nil:
		g.answers.Add(1)
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxBody)
	case errors.Is(req.Context().Err(), context.DeadlineExceeded):
		g.silentSince(asked)
	}
	return resp, err
}

// silentSince drops the idle connections if no answer has come since there were
// this many.
func (g *guard) silentSince(answers uint64) {
	if g.answers.Load() == answers {
		g.drop()
	}
}

func (g *guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	tcp, err := connect(ctx, net.DefaultResolver.LookupNetIP, network, address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: tcp, guard: g}, nil
}

// conn tells its guard when the kernel gives it up. That comes before net/http
// repeats the request on the next idle connection, which may be dead too.
type conn struct {
	net.Conn
	guard *guard
	asked atomic.Uint64 // how many answers there were at the last Write
}

func (c *conn) Write(b []byte) (int, error) {
	c.asked.Store(c.guard.answers.Load())
	return c.Conn.Write(b)
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, unix.ETIMEDOUT) {
		c.guard.silentSince(c.asked.Load())
	}
	return n, err
}

// transportReason describes an error from below HTTP. Only error types whose
// text cannot quote a response pass on their own text.
func transportReason(err error) string {
	var (
		op       *net.OpError
		verify   *tls.CertificateVerificationError
		noTLS    tls.RecordHeaderError
		hostname x509.HostnameError
		timeout  net.Error
		tooLarge *http.MaxBytesError
	)
	switch {
	case errors.As(err, &hostname):
		return hostname.Error() + "; check tlsServerName"
	case errors.As(err, &verify):
		return verify.Error() + "; check vaultCACert and tlsServerName"
	case errors.As(err, &noTLS), errors.Is(err, http.ErrSchemeMismatch):
		return "the server does not speak TLS; use http:// or the port that speaks TLS"
	case errors.As(err, &op) && op.Op == "remote error": // crypto/tls names a received alert so
		return "vault refused the TLS handshake: " + op.Error() + "; check clientCert and clientKey"
	case errors.As(err, &op):
		return op.Error()
	case errors.As(err, &timeout) && timeout.Timeout(): // net/http's own, whose type is not exported
		return fmt.Sprintf("the TLS handshake took longer than %v", handshakeTimeout)
	case errors.As(err, &tooLarge):
		return fmt.Sprintf("the response is larger than %d bytes", maxBody)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "vault closed the connection before answering"
	case strings.Contains(err.Error(), "server sent GOAWAY"):
		return "vault closed the connection"
	}
	return "the response is not from Vault; check what listens at this address"
}

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
	"time"
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

// newTransport speaks HTTP/1.1 over a pool of connections. For transit's messages
// of a few hundred bytes, the pool is a fifth faster than one HTTP/2 connection
// at 1 and at 16 callers and no slower at 128 (BenchmarkTransport), and a dead
// connection stalls one call instead of all. There is no proxy, because the
// environment does not configure the daemon.
func newTransport(tlsConfig *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return connect(ctx, net.DefaultResolver.LookupNetIP, network, address)
		},
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: handshakeTimeout,
		MaxIdleConns:        idleConns,
		MaxIdleConnsPerHost: idleConns,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
	}
}

// guard bounds responses. It deliberately has no CloseIdleConnections method:
// go-retryablehttp calls that after every failed request, and one sealed Vault
// would cost every connection of the pool.
type guard struct{ next http.RoundTripper }

func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := g.next.RoundTrip(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxBody)
	}
	return resp, err
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

// SPDX-License-Identifier: Apache-2.0

// Package vault is all that Trousseau knows of HashiCorp Vault and OpenBao: the
// transit engine's encrypt, decrypt and read-key calls, the token that makes
// them, and what can go wrong, sorted into a closed set of classes.
//
// It is the only importer of vault-client-go, whose defaults do not suit a
// caller that gives up after three seconds: see [Dial].
package vault

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault-client-go"
)

const (
	// maxBody bounds an answer; transit's are below 10 KiB.
	maxBody = 1 << 20
	// idleConns is how many connections are kept for the next burst.
	idleConns = 128
	// apiPrefix is not left to vault-client-go, which would take a mount named
	// v1 for it.
	apiPrefix = "/v1/"
	// backstop bounds a call whose context carries no deadline.
	backstop = 30 * time.Second
)

// Tests wait for longer: the machine that runs them may stall.
var (
	// dialTimeout leaves time for a second attempt within KMS v2's default
	// deadline of 3 s.
	dialTimeout = time.Second
	// handshakeTimeout is longer, because a handshake takes processor time on
	// both sides, and a starved node needs its plugin most.
	handshakeTimeout = 2 * time.Second
)

// Config says how to reach one transit engine. [Dial] copies it.
type Config struct {
	// Addresses are the URLs of Vault's nodes: scheme, host and port, without a
	// path. At least one; the first is asked first.
	Addresses []string
	// Namespace is the Vault namespace, "" for none or root.
	Namespace string
	// Mount is the transit engine's mount path, without leading or trailing slash.
	Mount string
	// Credential is how to come by the token that is sent with every call.
	Credential Credential
	// AuthNamespace is the namespace of the auth method and of the token; "" is
	// that of the transit engine.
	AuthNamespace string
	// CACert holds PEM certificates that replace the system's roots; nil keeps
	// those.
	CACert []byte
	// ServerName overrides the name checked in Vault's certificate.
	ServerName string
	// ClientCert and ClientKey are the PEM pair shown to Vault; both or neither.
	ClientCert, ClientKey []byte
	// Metrics counts the calls; nil counts nothing.
	Metrics *Metrics
	// Transport replaces the network, for tests; nil means a transport of the
	// client's own.
	Transport http.RoundTripper
}

// Client calls one Vault with one token. It is safe for concurrent use, after
// [Client.Login] where its credential is not a token. Every method takes its
// deadline from ctx, makes exactly one attempt and returns only *[fault.Error]s.
//
// All calls go to one node of Vault's, until a failure speaks against that node
// (classes [fault.Unavailable], [fault.Sealed], [fault.Timeout] and [fault.VersionTooNew]): then the
// next call, and those after it, go to the next node, after the last one to the
// first again.
type Client struct {
	// Funcs, because fmt follows pointers in some cases (a wrong verb is one):
	// to the token behind nodes, and to what other goroutines write.
	nodes         func() *nodes
	closeIdle     func()
	credential    Credential
	revocable     bool // Login has got a token that Vault can revoke
	engine        string
	mount         string
	authNamespace string
	metrics       *Metrics
}

// Dial makes a Client. It does no I/O, so an error means that cfg itself is
// wrong. The caller must [Client.Close] it.
func Dial(cfg Config) (*Client, error) {
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("preparing a vault client: there is no address to call")
	}
	c := &Client{
		closeIdle:     func() {},
		credential:    cfg.Credential,
		engine:        cfg.Mount,
		mount:         cfg.Mount,
		authNamespace: cmp.Or(cfg.AuthNamespace, cfg.Namespace),
		metrics:       cfg.Metrics,
	}
	if cfg.Namespace != "" {
		c.engine = cfg.Namespace + "/" + cfg.Mount
	}
	rt := cfg.Transport
	if rt == nil {
		tlsConfig, err := cfg.TLS()
		if err != nil {
			return nil, err
		}
		transport := newTransport(tlsConfig)
		c.closeIdle = transport.CloseIdleConnections
		rt = transport
	}
	// One for all nodes: its pool keeps the connections of each host apart.
	web := &http.Client{
		Transport:     guard{rt},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	all := &nodes{}
	for _, address := range cfg.Addresses {
		api, err := newAPI(cfg, address, web)
		if err != nil {
			return nil, err
		}
		all.all = append(all.all, node{address: address, api: api})
	}
	c.nodes = func() *nodes { return all }
	if given := cfg.Credential.given; given != nil {
		if err := c.setToken(given()); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// newAPI makes the client of one node. vault-client-go knows one address only.
func newAPI(cfg Config, address string, web *http.Client) (*vault.Client, error) {
	api, err := vault.New(
		vault.WithAddress(address),
		vault.WithHTTPClient(web),
		vault.WithRequestTimeout(backstop),
		vault.WithRetryConfiguration(vault.RetryConfiguration{RetryMax: 0}),
		vault.WithDisableRedirects(),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing a client for vault at %s: %w", address, err)
	}
	if err := api.SetRequestCallbacks(markForProxy); err != nil {
		return nil, fmt.Errorf("preparing a client for vault at %s: %w", address, err)
	}
	if cfg.Namespace != "" {
		if err := api.SetNamespace(cfg.Namespace); err != nil {
			return nil, fmt.Errorf("preparing a vault client: namespace %q holds characters that no HTTP header can carry", cfg.Namespace)
		}
	}
	return api, nil
}

// Close drops the idle connections, unless Config.Transport was given. Calls
// under way are not cut.
func (c *Client) Close() { c.closeIdle() }

// Address returns the URL of the node that the next call goes to.
func (c *Client) Address() string {
	next, _ := c.nodes().current()
	return next.address
}

// Nodes returns how many nodes there are to ask.
func (c *Client) Nodes() int { return len(c.nodes().all) }

// Engine returns the namespace, if any, and the mount, joined by a slash.
func (c *Client) Engine() string { return c.engine }

// newTransport speaks HTTP/1.1 over a pool of connections. Transit's messages
// are a few hundred bytes: the pool was measured a fifth faster than one HTTP/2
// connection at 1 and at 16 callers and no slower at 128 (BenchmarkTransport),
// and a dead connection stalls one call instead of all. No proxy, because the
// environment does not configure us.
func newTransport(tlsConfig *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	return &http.Transport{
		DialContext:         dialer.DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: handshakeTimeout,
		MaxIdleConns:        idleConns,
		MaxIdleConnsPerHost: idleConns,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
	}
}

// TLS is the TLS configuration of a [Client] that is dialed with cfg; the caller
// owns it. An empty ServerName means the host of the address that is connected
// to. An error means that cfg itself is wrong.
func (cfg Config) TLS() (*tls.Config, error) {
	tc := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cfg.ServerName}
	if cfg.CACert != nil {
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(cfg.CACert) {
			return nil, errors.New("preparing a vault client: the CA file holds no usable certificate")
		}
	}
	if cfg.ClientCert != nil {
		pair, err := tls.X509KeyPair(cfg.ClientCert, cfg.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("preparing a vault client: client certificate and key: %w", err)
		}
		tc.Certificates = []tls.Certificate{pair}
	}
	return tc, nil
}

// guard bounds answers. It deliberately has no CloseIdleConnections method:
// go-retryablehttp calls that after every failed request, and one sealed Vault
// would cost every connection of the pool.
type guard struct{ next http.RoundTripper }

func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxBody}
	return resp, nil
}

var errBodyTooLarge = fmt.Errorf("the answer is larger than %d bytes", maxBody)

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errBodyTooLarge
	}
	return n, err
}

// transportReason words an error that came from below HTTP. Only error types
// whose text cannot quote an answer pass their own text on.
func transportReason(err error) string {
	var (
		op       *net.OpError
		verify   *tls.CertificateVerificationError
		noTLS    tls.RecordHeaderError
		hostname x509.HostnameError
		timeout  net.Error
	)
	switch {
	case errors.As(err, &hostname):
		return hostname.Error() + "; check tlsServerName"
	case errors.As(err, &verify):
		return verify.Error() + "; check vaultCACert and tlsServerName"
	case errors.As(err, &noTLS), errors.Is(err, http.ErrSchemeMismatch):
		return "what listens there does not speak TLS; is the address http:// ?"
	case errors.As(err, &op) && op.Op == "remote error": // crypto/tls names a received alert so
		return "vault refused the TLS handshake: " + op.Error() + "; check clientCert and clientKey"
	case errors.As(err, &op):
		return op.Error()
	case errors.As(err, &timeout) && timeout.Timeout(): // net/http's own, whose type is not exported
		return fmt.Sprintf("what listens there did not complete the TLS handshake within %v", handshakeTimeout)
	case errors.Is(err, errBodyTooLarge):
		return errBodyTooLarge.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "vault closed the connection before it had answered"
	case strings.Contains(err.Error(), "server sent GOAWAY"):
		return "vault closed the connection"
	}
	return "the answer is not one of Vault's; check what listens at this address"
}

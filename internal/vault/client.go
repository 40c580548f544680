// SPDX-License-Identifier: Apache-2.0

// Package vault is the client for HashiCorp Vault and OpenBao: the transit
// engine's encrypt, decrypt and read-key calls, and the token that makes them.
// Errors are sorted into the classes of package fault.
//
// It is the only importer of vault-client-go, whose default timeouts and retries
// do not suit a caller that gives up after three seconds: see [Dial].
package vault

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"path"
	"time"

	"github.com/hashicorp/vault-client-go"
)

const (
	// maxBody bounds an answer; transit's are below 10 KiB.
	maxBody = 1 << 20
	// apiPrefix is set here, because vault-client-go mistakes a mount named v1
	// for it.
	apiPrefix = "/v1/"
)

// Config says how to reach one transit engine. [Dial] copies it.
type Config struct {
	// Addresses are the URLs of Vault's nodes: scheme, host and port, without a
	// path. At least one.
	Addresses []string
	// Namespace is the Vault namespace, "" for none or root.
	Namespace string
	// Mount is the transit engine's mount path, without leading or trailing slash.
	Mount string
	// Credential says how to authenticate to Vault.
	Credential Credential
	// AuthNamespace is the namespace of the auth method and of the token; ""
	// means Namespace.
	AuthNamespace string
	// CACert holds PEM certificates that replace the system's roots; nil keeps
	// the system's.
	CACert []byte
	// ServerName overrides the name checked in Vault's certificate.
	ServerName string
	// ClientCert and ClientKey are the PEM client certificate and its key; set
	// both or neither.
	ClientCert, ClientKey []byte
	// Metrics counts the calls; nil counts nothing.
	Metrics *Metrics
	// Transport replaces the network, for tests; nil means a new transport.
	Transport http.RoundTripper
}

// Client calls one node of one Vault. The clients of one [Dial] share a token. It
// is safe for concurrent use once [Client.Login] has returned, if its credential
// needs a login. Every method takes its deadline from ctx, makes exactly one
// attempt and returns only *[fault.Error]s.
type Client struct {
	api func() *vault.Client
	*session
}

// session is what the clients of one Dial share.
type session struct {
	// A func, like Client.api, because fmt sometimes follows pointers (for a wrong
	// verb, say) and would print the token and what other goroutines write.
	apis          func() []*vault.Client
	closeIdle     func()
	credential    Credential
	revocable     bool // Login obtained a token that Vault can revoke
	engine        string
	mount         string
	authNamespace string
	metrics       *Metrics
}

// Dial makes a Client for each of cfg's addresses, in their order. It does no I/O,
// so an error means that cfg itself is wrong. The caller must [Client.Close] one
// of them, which closes all.
func Dial(cfg Config) ([]*Client, error) {
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("preparing a vault client: no address is set")
	}
	shared := &session{
		closeIdle:     func() {},
		credential:    cfg.Credential,
		engine:        path.Join(cfg.Namespace, cfg.Mount),
		mount:         cfg.Mount,
		authNamespace: cmp.Or(cfg.AuthNamespace, cfg.Namespace),
		metrics:       cfg.Metrics,
	}
	var apis []*vault.Client
	var clients []*Client
	for _, address := range cfg.Addresses {
		g, err := newGuard(cfg)
		if err != nil {
			return nil, err
		}
		others := shared.closeIdle
		shared.closeIdle = func() { others(); g.drop() }
		api, err := vault.New(
			vault.WithAddress(address),
			vault.WithHTTPClient(&http.Client{
				Transport:     g,
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			}),
			vault.WithRequestTimeout(30*time.Second), // for a context without a deadline
			vault.WithRetryConfiguration(vault.RetryConfiguration{RetryMax: 0}),
			vault.WithDisableRedirects(),
		)
		if err == nil {
			err = errors.Join(api.SetRequestCallbacks(markForProxy), api.SetNamespace(cfg.Namespace))
		}
		if err != nil {
			return nil, fmt.Errorf("preparing a client for vault at %s: %w", address, err)
		}
		apis = append(apis, api)
		clients = append(clients, &Client{func() *vault.Client { return api }, shared})
	}
	shared.apis = func() []*vault.Client { return apis }
	if given := cfg.Credential.given; given != nil {
		if err := shared.setToken(given()); err != nil {
			return nil, err
		}
	}
	return clients, nil
}

// Close closes the idle connections of all clients of one Dial, unless
// Config.Transport was given. Calls in progress continue.
func (s *session) Close() { s.closeIdle() }

// Address returns the URL of the client's node.
func (c *Client) Address() string { return c.api().Configuration().Address }

// Engine returns the namespace, if any, and the mount, joined by a slash.
func (s *session) Engine() string { return s.engine }

// tls is the TLS configuration of a [Client] that is dialed with cfg. An empty
// ServerName means the host of the address that is connected to.
func (cfg Config) tls() (*tls.Config, error) {
	tc := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cfg.ServerName}
	if cfg.CACert != nil {
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(cfg.CACert) {
			return nil, errors.New("preparing a vault client: vaultCACert contains no valid certificate")
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

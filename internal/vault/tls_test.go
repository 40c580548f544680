// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

func TestTLSRefused(t *testing.T) {
	plain := vaulttest.Start(t)
	secure := vaulttest.Start(t, vaulttest.Options{TLS: true})
	mutual := vaulttest.Start(t, vaulttest.Options{TLS: true, ClientCert: true})
	other := vaulttest.Start(t, vaulttest.Options{TLS: true, ClientCert: true})
	tests := map[string]struct {
		server *vaulttest.Server
		change func(*vault.Config)
		text   string
	}{
		"other CA": {
			secure, func(cfg *vault.Config) { cfg.CACert = other.CAPEM() },
			`tls: failed to verify certificate: x509: certificate signed by unknown authority (possibly because of "x509: ECDSA verification failure" while trying to verify candidate authority certificate "vaulttest CA"); check vaultCACert and tlsServerName`,
		},
		"system roots": {
			secure, func(cfg *vault.Config) { cfg.CACert = nil },
			"tls: failed to verify certificate: x509: certificate signed by unknown authority; check vaultCACert and tlsServerName",
		},
		"server name": {
			secure, func(cfg *vault.Config) { cfg.ServerName = "vault.example" },
			"x509: certificate is valid for localhost, not vault.example; check tlsServerName",
		},
		"http to https": {
			secure, func(cfg *vault.Config) { cfg.Addresses[0] = strings.Replace(cfg.Addresses[0], "https", "http", 1) },
			"the server speaks TLS; use https://",
		},
		"https to http": {
			plain, func(cfg *vault.Config) { cfg.Addresses[0] = strings.Replace(cfg.Addresses[0], "http", "https", 1) },
			"the server does not speak TLS; use http:// or the port that speaks TLS",
		},
		"no client certificate": {
			mutual, func(cfg *vault.Config) { cfg.ClientCert, cfg.ClientKey = nil, nil },
			"vault refused the TLS handshake: remote error: tls: certificate required; check clientCert and clientKey",
		},
		"other client certificate": {
			mutual, func(cfg *vault.Config) { cfg.ClientCert, cfg.ClientKey = other.ClientCertPEM(), other.ClientKeyPEM() },
			"vault refused the TLS handshake: remote error: tls: unknown certificate authority; check clientCert and clientKey",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := dial(t, test.server, test.change)
			before := test.server.Total()
			wantError(t, c, encrypt(bounded(t), c), fault.Unavailable, "encrypting with transit/kek at ADDRESS: "+test.text)
			if got := test.server.Total(); got != before {
				t.Errorf("got %d requests, want none", got-before)
			}
		})
	}
}

func TestServerName(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true, Names: []string{"vault.example"}})
	s.CreateKey("kek")
	for _, name := range []string{"", "localhost", "vault.example"} {
		c := dial(t, s, func(cfg *vault.Config) { cfg.ServerName = name })
		if err := encrypt(bounded(t), c); err != nil {
			t.Errorf("server name %q: %v", name, err)
		}
	}
}

// A load balancer without a backend accepts and never answers. The call must end at
// its deadline.
func TestHandshakeThatNeverEnds(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t, vaulttest.Options{TLS: true})
	address := listen(t, func(net.Conn) {})
	c := dial(t, s, func(cfg *vault.Config) { cfg.Addresses = []string{"https://" + address} })
	start := time.Now()
	wantError(t, c, encrypt(bounded(t), c), fault.Unavailable,
		"encrypting with transit/kek at ADDRESS: the TLS handshake took longer than 6s")
	if took := time.Since(start); took < 5900*time.Millisecond {
		t.Errorf("took %v, want 6s", took)
	}
}

// TestHandshakeCut checks that a connection closed at any point of the handshake can
// be retried.
func TestHandshakeCut(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true})
	for name, answer := range map[string]string{
		"before a byte":       "",
		"within a record":     "\x16\x03\x03\x00\x7a\x02",
		"after its own alert": "\x15\x03\x03\x00\x02\x02\x50", // fatal, internal error
	} {
		t.Run(name, func(t *testing.T) {
			address := listen(t, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 16<<10))
				_, _ = conn.Write([]byte(answer))
				_ = conn.Close()
			})
			c := dial(t, s, func(cfg *vault.Config) { cfg.Addresses = []string{"https://" + address} })
			if err := encrypt(bounded(t), c); fault.ClassOf(err) != fault.Unavailable || !fault.ClassOf(err).Transient() {
				t.Errorf("%v, want class %s", err, fault.Unavailable)
			}
		})
	}
}

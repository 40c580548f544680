// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"crypto/tls"
	"net/http"
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// show sets the caller's client certificate for new connections; nil removes it.
func (c *caller) show(cert, key []byte) {
	c.t.Helper()
	config := c.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	config.Certificates = nil
	if cert != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			c.t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	c.t.Cleanup(transport.CloseIdleConnections)
	c.client.Transport = transport
}

func TestCertificateLogin(t *testing.T) {
	const noMatch = "failed to match all constraints for this login certificate"
	s := vaulttest.Start(t, vaulttest.Options{TLS: true})
	own, ownKey := s.IssueClientCert("own")
	cert := s.EnableCert("", "cert")
	c := newCaller(t, s, "")

	c.show(own, ownKey)
	c.want(400, "POST", "auth/cert/login", nil, noMatch) // no roles yet
	cert.SetRole("b-any", vaulttest.CertOptions{})
	// A certificate from another Vault's CA, which this one trusts only as a single
	// certificate.
	other := vaulttest.Start(t)
	foreign, foreignKey := other.IssueClientCert("foreign")
	cert.SetRole("c-leaf", vaulttest.CertOptions{Certificate: foreign})
	stranger, strangerKey := other.IssueClientCert("stranger")

	for _, tt := range []struct {
		name      string
		cert, key []byte
		role      string
		status    int
		want      string // role, or text of the refusal
	}{
		{"trusted CA", own, ownKey, "", 200, "b-any"},
		{"role by name", own, ownKey, "b-any", 200, "b-any"},
		{"trusted leaf", foreign, foreignKey, "", 200, "c-leaf"},
		{"role of another leaf", own, ownKey, "c-leaf", 400, noMatch},
		{"unknown CA", stranger, strangerKey, "", 400, noMatch},
		{"no certificate", nil, nil, "", 400, "client certificate must be supplied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.show(tt.cert, tt.key)
			a := c.do("POST", "auth/cert/login", fields{"name": tt.role})
			got := ""
			if metadata, ok := a.Auth["metadata"].(map[string]any); ok {
				got, _ = metadata["cert_name"].(string)
			} else if len(a.Errors) == 1 {
				got = a.Errors[0]
			}
			if a.status != tt.status || got != tt.want {
				t.Errorf("got %d %q, want %d %q", a.status, got, tt.status, tt.want)
			}
		})
	}
}

func TestCertificateLoginNeedsTLS(t *testing.T) {
	s := vaulttest.Start(t)
	s.EnableCert("", "cert").SetRole("kms", vaulttest.CertOptions{})
	c := newCaller(t, s, "")
	c.want(400, "POST", "auth/cert/login", nil, "tls connection required")
	c.client.Transport = s.RoundTripper()
	c.want(400, "POST", "auth/cert/login", nil, "tls connection required")
}

// A client certificate required for TLS is also valid for the cert method, on every node of the cluster.
func TestCertificateLoginWithMutualTLS(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true, ClientCert: true})
	second := vaulttest.Start(t, vaulttest.Options{TLS: true, ClientCert: true, Join: s})
	s.EnableCert("", "cert").SetRole("kms", vaulttest.CertOptions{})
	for _, node := range []*vaulttest.Server{s, second} {
		c := newCaller(t, node, "")
		c.show(s.ClientCertPEM(), s.ClientKeyPEM())
		c.want(200, "POST", "auth/cert/login", nil)
		c.show(s.IssueClientCert("another"))
		c.want(200, "POST", "auth/cert/login", nil)
	}
}

func TestRenewTokenOfCertificate(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true})
	cert := s.EnableCert("", "cert")
	role := vaulttest.CertOptions{Token: vaulttest.TokenOptions{Policies: []string{"kms"}}}
	cert.SetRole("kms", role)
	c := newCaller(t, s, "")
	c.show(s.IssueClientCert("trousseau"))
	c.token = clientToken(c.want(200, "POST", "auth/cert/login", nil))
	c.want(200, "POST", "auth/token/renew-self", nil)
	c.show(s.IssueClientCert("trousseau"))
	c.want(200, "POST", "auth/token/renew-self", nil) // the rotated certificate will do
	c.show(nil, nil)
	c.want(400, "POST", "auth/token/renew-self", nil, "client certificate must be supplied")
	c.want(200, "GET", "auth/token/lookup-self", nil)
	c.show(s.IssueClientCert("trousseau"))
	role.Token.Policies = []string{"other"}
	cert.SetRole("kms", role)
	c.want(500, "POST", "auth/token/renew-self", nil, "1 error occurred:\n\t* failed to renew entry: policies have changed, not renewing\n\n")
}

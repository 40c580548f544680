// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// caller sends requests as one token.
type caller struct {
	t         *testing.T
	server    *vaulttest.Server
	client    *http.Client
	token     string
	namespace string
}

func newCaller(t *testing.T, s *vaulttest.Server, token string) *caller {
	t.Helper()
	return &caller{t: t, server: s, client: newClient(t, s), token: token}
}

// newClient trusts the server's current CA and uses the client certificate that the server accepts.
func newClient(t *testing.T, s *vaulttest.Server) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(s.CAPEM())
	if s.ClientCertPEM() != nil {
		pair, err := tls.X509KeyPair(s.ClientCertPEM(), s.ClientKeyPEM())
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is a decoded JSON response.
type answer struct {
	status int
	header http.Header
	raw    string
	Errors []string       `json:"errors"`
	Data   map[string]any `json:"data"`
	Auth   map[string]any `json:"auth"`

	RequestID string   `json:"request_id"`
	MountType string   `json:"mount_type"`
	Warnings  []string `json:"warnings"`
}

// try sends a request; body is nil or marshals to JSON.
func (c *caller) try(ctx context.Context, method, path string, body any) (*answer, error) {
	c.t.Helper()
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			c.t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.server.URL()+"/v1/"+path, bytes.NewReader(payload))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("X-Vault-Request", "true")
	if c.token != "" {
		req.Header.Set("X-Vault-Token", c.token)
	}
	if c.namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.namespace)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	if len(raw) > 0 && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(raw, a); err != nil {
			c.t.Fatalf("%s %s: %v in %q", method, path, err, raw)
		}
	}
	return a, nil
}

// do is try for a request that must get an answer.
func (c *caller) do(method, path string, body any) *answer {
	c.t.Helper()
	a, err := c.try(c.t.Context(), method, path, body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// want is do for a request that must get this status and, if given, these errors.
func (c *caller) want(status int, method, path string, body any, errors ...string) *answer {
	c.t.Helper()
	a := c.do(method, path, body)
	if a.status != status || len(errors) > 0 && strings.Join(a.Errors, "|") != strings.Join(errors, "|") {
		c.t.Fatalf("%s %s: got %d %q, want %d %q", method, path, a.status, a.Errors, status, errors)
	}
	return a
}

type fields = map[string]any

func (c *caller) encrypt(key, plaintext string) string {
	c.t.Helper()
	a := c.want(200, "POST", "transit/encrypt/"+key, fields{"plaintext": b64(plaintext)})
	ciphertext, _ := a.Data["ciphertext"].(string)
	return ciphertext
}

func (c *caller) decrypt(key, ciphertext string) string {
	c.t.Helper()
	a := c.want(200, "POST", "transit/decrypt/"+key, fields{"ciphertext": ciphertext})
	encoded, _ := a.Data["plaintext"].(string)
	plaintext, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(plaintext)
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// clock is a clock that tests advance.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1_700_000_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

func TestHealthAndSeal(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	c := newCaller(t, s, s.KMSToken("kek"))
	ciphertext := c.encrypt("kek", "seed")
	for _, tt := range []struct {
		name    string
		set     func()
		query   string
		status  int
		sealed  bool
		standby bool
	}{
		{"active", func() {}, "", 200, false, false},
		{"sealed", s.Seal, "", 503, true, true},
		{"sealed, standbyok", func() {}, "?standbyok=true", 503, true, true},
		{"unsealed", s.Unseal, "", 200, false, false},
		{"never initialized", func() { s.SetInitialized(false) }, "", 501, true, true},
		{"initialized", func() { s.SetInitialized(true) }, "", 200, false, false},
		{"standby", func() { s.SetStandby(true) }, "", 429, false, true},
		{"active again", func() { s.SetStandby(false) }, "", 200, false, false},
	} {
		tt.set()
		anyone := newCaller(t, s, "")
		if a := anyone.do("GET", "sys/health"+tt.query, nil); a.status != tt.status {
			t.Errorf("%s: sys/health gave %d, want %d", tt.name, a.status, tt.status)
		} else if !strings.Contains(a.raw, `"sealed":`+boolText(tt.sealed)) || !strings.Contains(a.raw, `"standby":`+boolText(tt.standby)) {
			t.Errorf("%s: sys/health said %s", tt.name, a.raw)
		}
		if a := anyone.want(200, "GET", "sys/seal-status", nil); !strings.Contains(a.raw, `"sealed":`+boolText(tt.sealed)) {
			t.Errorf("%s: sys/seal-status said %s", tt.name, a.raw)
		}
		if tt.sealed {
			c.want(503, "POST", "transit/decrypt/kek", fields{"ciphertext": ciphertext}, "Vault is sealed")
		} else if got := c.decrypt("kek", ciphertext); got != "seed" {
			t.Errorf("%s: decrypt gave %q", tt.name, got)
		}
	}
}

func TestDRSecondary(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	s.EnableAppRole("", "approle")
	root, anyone := newCaller(t, s, s.RootToken()), newCaller(t, s, "")
	s.SetDRSecondary(true)
	const disabled = "path disabled in replication DR secondary mode"
	root.want(400, "POST", "transit/encrypt/kek", fields{"plaintext": ""}, disabled)
	root.want(400, "GET", "transit/keys/kek", nil, disabled)
	root.want(400, "GET", "auth/token/lookup-self", nil, disabled)
	root.want(400, "POST", "sys/capabilities-self", fields{"paths": "x"}, disabled)
	anyone.want(400, "POST", "auth/approle/login", fields{"role_id": "x", "secret_id": "y"}, disabled)
	if a := anyone.want(472, "GET", "sys/health", nil); !strings.Contains(a.raw, `"replication_dr_mode":"secondary"`) {
		t.Errorf("sys/health said %s", a.raw)
	}
	s.Seal()
	root.want(503, "POST", "transit/encrypt/kek", fields{"plaintext": ""}, "Vault is sealed")
	s.Unseal()
	s.SetDRSecondary(false)
	root.want(200, "POST", "transit/encrypt/kek", fields{"plaintext": ""})
}

func boolText(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

func TestOutsideOfTheAPI(t *testing.T) {
	s := vaulttest.Start(t)
	resp, err := newClient(t, s).Get(s.URL() + "/prefix/v1/sys/health")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("got %d, want 404", resp.StatusCode)
	}

	// In process only: over a socket the answer races with the connection reset.
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL()+"/v1/transit/encrypt/kek", bytes.NewReader(make([]byte, 32<<20+1)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err = s.RoundTripper().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got %d, want 413", resp.StatusCode)
	}
}

func TestStopAndStart(t *testing.T) {
	s := vaulttest.Start(t)
	key := s.CreateKey("kek")
	c := newCaller(t, s, s.KMSToken("kek"))
	ciphertext := c.encrypt("kek", "seed")
	key.Rotate()

	s.Hang()
	cut := make(chan error, 1)
	go func() {
		_, err := c.try(context.WithoutCancel(t.Context()), "GET", "transit/keys/kek", nil)
		cut <- err
	}()
	if err := s.WaitInFlight(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	s.Stop()
	if err := <-cut; err == nil {
		t.Error("a request under way survived Stop")
	}
	if _, err := c.try(t.Context(), "GET", "transit/keys/kek", nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("stopped: got %v, want connection refused", err)
	}
	s.ClearFaults()
	for range 2 {
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.decrypt("kek", ciphertext); got != "seed" {
		t.Errorf("started again: decrypt gave %q", got)
	}
}

func TestTLS(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true, Names: []string{"vault.example"}})
	c := newCaller(t, s, s.RootToken())
	if !strings.HasPrefix(s.URL(), "https://127.0.0.1:") {
		t.Fatalf("URL: got %s", s.URL())
	}
	c.want(200, "GET", "auth/token/lookup-self", nil)

	if resp, err := (&http.Client{Transport: &http.Transport{}}).Get(s.URL() + "/v1/sys/health"); err == nil {
		_ = resp.Body.Close()
		t.Error("a client without the CA got through")
	}
	before := s.CAPEM()
	if err := s.RotateCA(); err != nil {
		t.Fatal(err)
	}
	if string(before) == string(s.CAPEM()) {
		t.Error("RotateCA: same CA")
	}
	c.want(200, "GET", "auth/token/lookup-self", nil) // on its open connection
	c.client.CloseIdleConnections()
	if _, err := c.try(t.Context(), "GET", "auth/token/lookup-self", nil); err == nil {
		t.Error("a client with the old CA got through")
	}
	newCaller(t, s, s.RootToken()).want(200, "GET", "auth/token/lookup-self", nil)
}

func TestHTTP2AndHTTP1(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true})
	for proto, h2 := range map[string]bool{"HTTP/2.0": true, "HTTP/1.1": false} {
		client := newClient(t, s)
		client.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
		resp, err := client.Get(s.URL() + "/v1/sys/health")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.Proto != proto {
			t.Errorf("got %s, want %s", resp.Proto, proto)
		}
	}
}

func TestClientCertificate(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true, ClientCert: true})
	c := newCaller(t, s, s.RootToken())
	c.want(200, "GET", "auth/token/lookup-self", nil)
	without := newCaller(t, s, s.RootToken())
	without.client.Transport.(*http.Transport).TLSClientConfig.Certificates = nil
	if _, err := without.try(t.Context(), "GET", "sys/health", nil); err == nil {
		t.Error("a client without certificate got through")
	}
}

func TestBadOptions(t *testing.T) {
	for name, options := range map[string]vaulttest.Options{
		"client certificates without TLS": {ClientCert: true},
		"address without port":            {Addr: "127.0.0.1"},
		"IPv6":                            {Addr: "[::1]:0"},
	} {
		if s, err := vaulttest.New(options); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		}
	}
	s := vaulttest.Start(t)
	if err := s.RotateCA(); err == nil {
		t.Error("RotateCA without TLS: no error")
	}
	if taken, err := vaulttest.New(vaulttest.Options{Addr: s.Addr()}); err == nil {
		taken.Close()
		t.Error("an address in use: no error")
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s, err := vaulttest.New(vaulttest.Options{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	c := newCaller(t, s, s.RootToken())
	c.want(200, "GET", "auth/token/lookup-self", nil)
	if got := s.Connections(); got != 1 {
		t.Errorf("Connections: got %d, want 1", got)
	}
	s.Hang()
	ctx, cancel := context.WithCancel(t.Context())
	cut := make(chan error, 1)
	go func() {
		_, err := c.try(ctx, "GET", "sys/health", nil)
		cut <- err
	}()
	if err := s.WaitInFlight(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
	cancel()
	<-cut
	c.client.CloseIdleConnections()
	if s.Connections() != 0 || s.InFlight() != 0 {
		t.Errorf("after Close: %d connections, %d in flight", s.Connections(), s.InFlight())
	}
	if err := s.Start(); err == nil {
		t.Error("a closed server started again")
	}
}

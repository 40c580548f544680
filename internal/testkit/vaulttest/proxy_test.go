// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

func TestProxyAddsItsToken(t *testing.T) {
	for _, tt := range []struct {
		name    string
		token   string // token sent by the client
		status  int
		errText string
	}{
		{"no token", "", 200, ""},
		{"token of the client's", "hvs.dead", 403, "invalid token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := vaulttest.Start(t, vaulttest.Options{TLS: true})
			s.CreateKey("kek")
			p := vaulttest.StartProxy(t, s, vaulttest.ProxyOptions{
				Token: vaulttest.TokenOptions{Rules: vaulttest.TransitPolicy("transit", "kek")},
			})
			c := newCaller(t, p.Server, tt.token)
			own := p.Token()
			if a := c.do("GET", "transit/keys/kek", nil); a.status != tt.status || !strings.Contains(a.raw, tt.errText) {
				t.Errorf("got %d %s", a.status, a.raw)
			}
			if p.Token() != own {
				t.Error("the proxy logged in again, although its token is valid")
			}
			if p.Count(vaulttest.OpReadKey) != 1 || s.Count(vaulttest.OpReadKey) != 1 {
				t.Errorf("counted %d at the proxy and %d at Vault, want one each", p.Count(vaulttest.OpReadKey), s.Count(vaulttest.OpReadKey))
			}
			if _, found := s.Leak(own.ID); !found {
				t.Error("the proxy's token is not known as a secret")
			}
		})
	}
}

func TestProxyWantsRequestHeader(t *testing.T) {
	s := vaulttest.Start(t)
	p := vaulttest.StartProxy(t, s, vaulttest.ProxyOptions{})
	resp, err := newClient(t, p.Server).Get(p.URL() + "/v1/sys/health")
	if err != nil {
		t.Fatal(err)
	}
	if body := readAll(t, resp); resp.StatusCode != 412 || !strings.Contains(body, `missing \"X-Vault-Request\" header`) {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if s.Total() != 0 || p.Total() != 1 {
		t.Errorf("got %d requests at Vault and %d at the proxy", s.Total(), p.Total())
	}
}

// The proxy removes fields that would reveal its token.
func TestProxyHidesItsToken(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{Now: newClock().Now})
	p := vaulttest.StartProxy(t, s, vaulttest.ProxyOptions{Token: vaulttest.TokenOptions{TTL: time.Hour}})
	c := newCaller(t, p.Server, "")
	a := c.want(200, "GET", "auth/token/lookup-self", nil)
	if a.Data["id"] != nil || a.Data["accessor"] != nil || a.Data["ttl"] != 3600.0 || strings.Contains(a.raw, p.Token().ID) {
		t.Errorf("lookup-self: got %s", a.raw)
	}
	a = c.want(200, "POST", "auth/token/renew-self", nil)
	if a.Auth["client_token"] != "" || a.Auth["accessor"] != "" || a.Auth["lease_duration"] != 3600.0 || a.Auth["renewable"] != true || strings.Contains(a.raw, p.Token().ID) {
		t.Errorf("renew-self: got %s", a.raw)
	}
	if _, ok := a.Auth["token_type"]; ok {
		t.Error("renew-self: token_type got through")
	}
	c.token = s.CreateToken(vaulttest.TokenOptions{}).ID
	if a = c.want(200, "GET", "auth/token/lookup-self", nil); a.Data["id"] != c.token {
		t.Errorf("lookup-self of the client's own token: got %v", a.Data["id"])
	}
}

func TestProxyLogsInAgain(t *testing.T) {
	s := vaulttest.Start(t)
	p := vaulttest.StartProxy(t, s, vaulttest.ProxyOptions{Token: vaulttest.TokenOptions{TTL: time.Hour}})
	c := newCaller(t, p.Server, "")
	first := p.Token()
	s.Revoke(first.ID)
	// The request that detects it fails; the next one uses the new token.
	c.want(403, "GET", "auth/token/lookup-self", nil, deadToken)
	c.want(200, "GET", "auth/token/lookup-self", nil)
	second := p.Token()
	s.Advance(time.Hour)
	c.want(200, "GET", "auth/token/lookup-self", nil)
	if third := p.Token(); first == second || second == third {
		t.Error("the proxy has kept a dead token")
	}
	if got := s.Tokens(); len(got) != 1 || got[0] != p.Token() {
		t.Errorf("live tokens: got %v", got)
	}
}

func TestProxyPassesOn(t *testing.T) {
	s := vaulttest.Start(t)
	s.Mount("team", "transit").CreateKey("kek")
	p := vaulttest.StartProxy(t, s, vaulttest.ProxyOptions{
		Token: vaulttest.TokenOptions{Namespace: "team", Rules: vaulttest.TransitPolicy("transit", "kek")},
	})
	c := newCaller(t, p.Server, "")
	c.namespace = "team"
	if got := c.decrypt("kek", c.encrypt("kek", "seed")); got != "seed" {
		t.Errorf("decrypt: got %q", got)
	}
	c.want(403, "GET", "transit/keys/other", nil, denied)
	if a := c.want(204, "POST", "auth/token/revoke-self", nil); a.raw != "" {
		t.Errorf("revoke-self: got %q", a.raw)
	}
	remove := s.HTML("<html>")
	if a := c.want(200, "GET", "transit/keys/kek", nil); a.raw != "<html>" || a.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("got %q as %q", a.raw, a.header.Get("Content-Type"))
	}
	remove()
	p.Stop()
	if _, err := c.try(t.Context(), "GET", "sys/health", nil); err == nil {
		t.Error("a stopped proxy answered")
	}
}

// By default a proxy retries for longer than its own limit of one minute.
func TestProxyHoldsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := vaulttest.Start(t, vaulttest.Options{InProcess: true})
		s.CreateKey("kek")
		p := vaulttest.StartProxy(t, s, vaulttest.ProxyOptions{
			Listen: vaulttest.Options{InProcess: true},
			Token:  vaulttest.TokenOptions{Rules: vaulttest.TransitPolicy("transit", "kek")},
		})
		c := &caller{t: t, server: p.Server, client: &http.Client{Transport: p.RoundTripper()}}
		s.Seal()
		start := time.Now()
		c.want(500, "GET", "transit/keys/kek", nil, "failed to get the response: context deadline exceeded")
		if took := time.Since(start); took != time.Minute || s.Count(vaulttest.OpReadKey) != 11 {
			t.Errorf("sealed: got an answer after %v and %d attempts", took, s.Count(vaulttest.OpReadKey))
		}
		time.AfterFunc(2500*time.Millisecond, s.Unseal)
		start = time.Now()
		c.want(200, "GET", "transit/keys/kek", nil)
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("unsealed after 2.5 s: got an answer after %v, want the third attempt, at 3 s", took)
		}

		s.Hang()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.try(ctx, "GET", "transit/keys/kek", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("hanging: got %v", err)
		}
		s.ClearFaults()
		// A fault of the proxy does not affect Vault.
		s.ResetCounts()
		p.FailNext(1, 502, "")
		c.want(502, "GET", "transit/keys/kek", nil)
		if s.Total() != 0 {
			t.Error("a request that failed at the proxy got to Vault")
		}
	})
}

func TestProxyDoesNotPassCertificatesOn(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true})
	s.EnableCert("", "cert").SetRole("kms", vaulttest.CertOptions{})
	p := vaulttest.StartProxy(t, s, vaulttest.ProxyOptions{Listen: vaulttest.Options{TLS: true}})
	c := newCaller(t, p.Server, "")
	c.show(s.IssueClientCert("trousseau"))
	c.want(400, "POST", "auth/cert/login", nil, "client certificate must be supplied")
}

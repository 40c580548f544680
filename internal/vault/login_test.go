// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// kmsHour is the token issued by the roles of these tests.
var kmsHour = vaulttest.TokenOptions{TTL: time.Hour, Rules: vaulttest.TransitPolicy("transit", "kek")}

// methods creates a credential of each kind that needs a login, and one that Vault
// refuses.
var methods = map[string]func(s *vaulttest.Server) (good, bad vault.Credential){
	"AppRole": func(s *vaulttest.Server) (good, bad vault.Credential) {
		m := s.EnableAppRole("", "approle")
		role := m.SetRole("trousseau", kmsHour)
		return vault.AppRole("approle", role, m.NewSecretID("trousseau")),
			vault.AppRole("approle", role, "not-the-secret-id")
	},
	"Kubernetes": func(s *vaulttest.Server) (good, bad vault.Credential) {
		m := s.EnableKubernetes("", "k8s/prod")
		m.SetRole("trousseau", kmsHour)
		return vault.JWT("k8s/prod", "trousseau", m.NewJWT("trousseau")), vault.JWT("k8s/prod", "other", m.NewJWT("trousseau"))
	},
	"JWT with the default role": func(s *vaulttest.Server) (good, bad vault.Credential) {
		m := s.EnableJWT("", "jwt")
		m.SetRole("trousseau", kmsHour)
		m.SetDefaultRole("trousseau")
		return vault.JWT("jwt", "", m.NewJWT("trousseau")), vault.JWT("jwt", "", "aa.bb.cc")
	},
	"certificate": func(s *vaulttest.Server) (good, bad vault.Credential) {
		s.EnableCert("", "cert").SetRole("trousseau", vaulttest.CertOptions{Token: kmsHour})
		return vault.Certificate("cert"), vault.Certificate("nothing/here")
	},
}

func TestLogin(t *testing.T) {
	for name, method := range methods {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t, vaulttest.Options{TLS: true, ClientCert: true})
			s.CreateKey("kek")
			good, bad := method(s)

			c := dial(t, s, func(cfg *vault.Config) { cfg.Credential = good })
			if err := encrypt(bounded(t), c); fault.ClassOf(err) != fault.Denied {
				t.Errorf("before the login: %v, want denied", err)
			}
			token, err := c.Login(bounded(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := encrypt(bounded(t), c); err != nil {
				t.Errorf("after the login: %v", err)
			}
			if !c.Mints() || !token.Renewable || token.Left != time.Hour || token.Lease != time.Hour || token.Accessor == "" {
				t.Errorf("token = %+v, want a renewable one of an hour", token)
			}
			alive := func() int { return len(s.Tokens()) }
			before := alive()
			if err := c.Revoke(bounded(t)); err != nil || alive() != before-1 {
				t.Errorf("Revoke: %v, %d tokens of %d are left", err, alive(), before)
			}

			refused := dial(t, s, func(cfg *vault.Config) { cfg.Credential = bad })
			_, err = refused.Login(bounded(t))
			if fault.ClassOf(err) != fault.Denied || !strings.Contains(err.Error(), "/login at "+s.URL()+": vault refused the login; check the role") {
				t.Errorf("with a wrong credential: %v", err)
			}
			wantSecretFree(t, s, err)
		})
	}
}

// TestLoginMeetsTrouble checks that an outage is not mistaken for a refusal.
func TestLoginMeetsTrouble(t *testing.T) {
	s := vaulttest.Start(t)
	good, _ := methods["AppRole"](s)
	c := dial(t, s, func(cfg *vault.Config) { cfg.Credential = good })
	for status, class := range map[int]fault.Class{500: fault.Unavailable, 503: fault.Unavailable, 429: fault.Throttled} {
		remove := s.Intercept(answer(status, `{"errors":["x"]}`))
		if _, err := c.Login(bounded(t)); fault.ClassOf(err) != class {
			t.Errorf("%d: %v, want class %s", status, err, class)
		}
		remove()
	}
	for name, body := range map[string]string{
		"nothing":       ``,
		"no auth":       `{"data":{"x":1}}`,
		"no token":      `{"data":null,"auth":{"client_token":""}}`,
		"header breaks": `{"data":null,"auth":{"client_token":"a\nb"}}`,
	} {
		remove := s.Intercept(answer(http.StatusOK, body))
		if _, err := c.Login(bounded(t)); fault.ClassOf(err) != fault.Unavailable {
			t.Errorf("an answer with %s: %v", name, err)
		}
		remove()
	}
	remove := s.Intercept(answer(http.StatusOK, `{"data":null,"auth":{"client_token":"","mfa_requirement":{"mfa_request_id":"x"}}}`))
	defer remove()
	if _, err := c.Login(bounded(t)); fault.ClassOf(err) != fault.Denied || !strings.Contains(err.Error(), "MFA, which is not supported") {
		t.Errorf("MFA: %v", err)
	}
}

func TestGivenTokenIsNotExchangedOrRevoked(t *testing.T) {
	s := vaulttest.Start(t)
	token := s.KMSToken("kek")
	c := dial(t, s, func(cfg *vault.Config) { cfg.Credential = vault.Given(token) })
	s.ResetCounts()
	_, err := c.Login(bounded(t))
	if err := c.Revoke(bounded(t)); err != nil {
		t.Error(err)
	}
	if err != nil || s.Total() != 0 || !s.TokenAlive(token) || c.Mints() {
		t.Errorf("login: %v, %d requests, token alive: %v", err, s.Total(), s.TokenAlive(token))
	}
}

func TestRenew(t *testing.T) {
	tests := map[string]struct {
		token vaulttest.TokenOptions
		left  time.Duration
		class fault.Class
	}{
		"within its maximum": {vaulttest.TokenOptions{TTL: time.Hour}, time.Hour, ""},
		"near its maximum":   {vaulttest.TokenOptions{TTL: time.Hour, ExplicitMaxTTL: 90 * time.Minute}, 50 * time.Minute, ""},
		"periodic":           {vaulttest.TokenOptions{Period: time.Hour}, time.Hour, ""},
		"not renewable":      {vaulttest.TokenOptions{TTL: time.Hour, NotRenewable: true}, 0, fault.Invalid},
		"batch":              {vaulttest.TokenOptions{TTL: time.Hour, Type: vaulttest.Batch}, 0, fault.Invalid},
		"no policy for it":   {vaulttest.TokenOptions{TTL: time.Hour, NoDefaultPolicy: true}, 0, fault.Denied},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t)
			id := s.CreateToken(test.token).ID
			c := dial(t, s, func(cfg *vault.Config) { cfg.Credential = vault.Given(id) })
			s.Advance(40 * time.Minute)
			got, err := c.Renew(bounded(t))
			if fault.ClassOf(err) != test.class || got.Left.Round(time.Minute) != test.left {
				t.Errorf("%s left, %v; want %s, class %q", got.Left, err, test.left, test.class)
			}
		})
	}
}

// TestAuthNamespace has the token in one namespace and the engine in its child.
func TestAuthNamespace(t *testing.T) {
	s := vaulttest.Start(t)
	s.Mount("platform/team", "transit").CreateKey("kek")
	m := s.EnableAppRole("platform", "approle")
	options := vaulttest.TokenOptions{TTL: time.Hour, Rules: vaulttest.TransitPolicy("team/transit", "kek")}
	role := m.SetRole("trousseau", options)
	c := dial(t, s, func(cfg *vault.Config) {
		cfg.Namespace, cfg.AuthNamespace = "platform/team", "platform"
		cfg.Credential = vault.AppRole("approle", role, m.NewSecretID("trousseau"))
	})
	ctx := bounded(t)
	if _, err := c.Login(ctx); err != nil {
		t.Fatal(err)
	}
	if err := encrypt(ctx, c); err != nil {
		t.Error(err)
	}
	if _, err := c.LookupSelf(ctx); err != nil {
		t.Error(err)
	}
	if _, err := c.Renew(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Revoke(ctx); err != nil {
		t.Error(err)
	}
}

// TestProxied uses a Vault Agent that adds the token and requires a header that a
// web page cannot set.
func TestProxied(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	agent := vaulttest.StartProxy(t, s, vaulttest.ProxyOptions{Token: kmsHour})
	c := dial(t, agent.Server, func(cfg *vault.Config) { cfg.Credential = vault.Proxied() })
	if _, err := c.Login(bounded(t)); err != nil {
		t.Error(err)
	}
	if err := encrypt(bounded(t), c); err != nil {
		t.Error(err)
	}
	self, err := c.LookupSelf(bounded(t))
	// The agent removes fields that would reveal its token.
	if err != nil || self.Accessor != "" || self.Lease != time.Hour || !c.Proxied() || c.Mints() {
		t.Errorf("%+v, %v; want the agent's token", self, err)
	}
	if err := c.Revoke(bounded(t)); err != nil || !s.TokenAlive(agent.Token().ID) {
		t.Errorf("Revoke: %v; is the agent's token alive: %v", err, s.TokenAlive(agent.Token().ID))
	}
}

func TestCredentialsPrintNoSecret(t *testing.T) {
	for name, credential := range map[string]vault.Credential{
		"given":   vault.Given("hvs.secret"),
		"AppRole": vault.AppRole("approle", "role-id", "hvs.secret"),
		"JWT":     vault.JWT("jwt", "role", "hvs.secret"),
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			for _, printed := range []any{credential, &credential, vault.Config{Credential: credential}} {
				text := fmt.Sprintf(verb, printed)
				if strings.Contains(text, "hvs.secret") || strings.Contains(text, fmt.Sprintf("%x", "hvs.secret")) {
					t.Errorf("%s with %s: %s", name, verb, text)
				}
			}
		}
	}
}

// TestAssociatedData checks that a ciphertext cannot be decrypted with other data,
// or none.
func TestAssociatedData(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	c := dial(t, s, nil)
	data := map[string][]byte{"none": nil, "one": []byte("cluster-1"), "another": []byte("cluster-2")}
	for made, with := range data {
		ciphertext, _, err := c.Encrypt(bounded(t), "kek", 0, []byte("seed"), with)
		if err != nil {
			t.Fatal(err)
		}
		for read, using := range data {
			want := fault.Class("")
			if made != read {
				want = fault.Invalid
			}
			if _, err := c.Decrypt(bounded(t), "kek", ciphertext, using); fault.ClassOf(err) != want {
				t.Errorf("encrypted with %s, decrypted with %s: %v, want class %q", made, read, err, want)
			}
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// methods holds one of each auth method with a role kms, and a credential for each.
type methods struct {
	server     *vaulttest.Server
	appRole    *vaulttest.AppRole
	kubernetes *vaulttest.Kubernetes
	jwt        *vaulttest.JWT
	cert       *vaulttest.Cert
	caller     *caller           // without a token, with a certificate named trousseau
	bodies     map[string]fields // path of a method → body of a valid login
}

// enableAll enables the methods in a namespace. Every role yields token.
func enableAll(t *testing.T, namespace string, token vaulttest.TokenOptions) *methods {
	t.Helper()
	s := vaulttest.Start(t, vaulttest.Options{TLS: true, Now: newClock().Now})
	m := &methods{
		server:  s,
		appRole: s.EnableAppRole(namespace, "team/approle"), kubernetes: s.EnableKubernetes(namespace, "kubernetes"),
		jwt: s.EnableJWT(namespace, "jwt"), cert: s.EnableCert(namespace, "cert"),
		caller: newCaller(t, s, ""),
	}
	m.caller.namespace = namespace
	m.caller.show(s.IssueClientCert("trousseau"))
	m.kubernetes.SetRole("kms", token)
	m.jwt.SetRole("kms", token)
	m.cert.SetRole("kms", vaulttest.CertOptions{Token: token})
	m.bodies = map[string]fields{
		"team/approle": {
			"role_id":   m.appRole.SetRole("kms", token),
			"secret_id": m.appRole.NewSecretID("kms"),
		},
		"kubernetes": {"role": "kms", "jwt": m.kubernetes.NewJWT("kms")},
		"jwt":        {"role": "kms", "jwt": m.jwt.NewJWT("kms")},
		"cert":       {},
	}
	return m
}

// login logs in by this method and must succeed.
func (m *methods) login(path string) *answer {
	m.caller.t.Helper()
	return m.caller.want(200, "POST", "auth/"+path+"/login", m.bodies[path])
}

func clientToken(a *answer) string {
	id, _ := a.Auth["client_token"].(string)
	return id
}

func TestLogin(t *testing.T) {
	m := enableAll(t, "", vaulttest.TokenOptions{TTL: time.Hour, Policies: []string{"kms"}})
	for path, want := range map[string]struct {
		display  string
		metadata []string // in the order of the keys; "*" is anything
		method   interface {
			Logins() int
			Tokens() []vaulttest.Token
		}
	}{
		"team/approle": {"team-approle", []string{"role_name=kms"}, m.appRole},
		"kubernetes": {"kubernetes-kube-system-trousseau", []string{
			"role=kms", "service_account_name=trousseau", "service_account_namespace=kube-system", "service_account_secret_name=", "service_account_uid=*",
		}, m.kubernetes},
		"jwt":  {"jwt-system:serviceaccount:kube-system:trousseau", []string{"role=kms"}, m.jwt},
		"cert": {"cert-kms", []string{"authority_key_id=*", "cert_name=kms", "common_name=trousseau", "serial_number=*", "subject_key_id="}, m.cert},
	} {
		t.Run(path, func(t *testing.T) {
			a := m.login(path)
			for field, want := range map[string]any{
				"lease_duration": 3600.0, "renewable": true, "token_type": "service", "orphan": true, "num_uses": 0.0, "mfa_requirement": nil,
			} {
				if got, ok := a.Auth[field]; !ok || got != want {
					t.Errorf("%s: got %v, want %v", field, got, want)
				}
			}
			for _, field := range []string{"policies", "token_policies"} {
				if list, _ := a.Auth[field].([]any); len(list) != 2 || list[0] != "default" || list[1] != "kms" {
					t.Errorf("%s: got %v", field, a.Auth[field])
				}
			}
			metadata, _ := a.Auth["metadata"].(map[string]any)
			var got []string
			for _, key := range slices.Sorted(maps.Keys(metadata)) {
				value, _ := metadata[key].(string)
				if slices.Contains(want.metadata, key+"=*") && value != "" {
					value = "*"
				}
				got = append(got, key+"="+value)
			}
			if !slices.Equal(got, want.metadata) {
				t.Errorf("metadata: got %q, want %q", got, want.metadata)
			}
			if a.Data != nil || a.MountType != "" || a.Warnings != nil {
				t.Errorf("got data %v, mount_type %q, warnings %q, want none", a.Data, a.MountType, a.Warnings)
			}

			again := m.login(path)
			if clientToken(again) == clientToken(a) || again.Auth["entity_id"] != a.Auth["entity_id"] || a.Auth["entity_id"] == "" {
				t.Error("two logins: want two tokens of one entity")
			}
			tokens := want.method.Tokens()
			if want.method.Logins() != 2 || len(tokens) != 2 || tokens[0].ID != clientToken(a) || tokens[1].ID != clientToken(again) || tokens[0].Accessor != a.Auth["accessor"] {
				t.Errorf("got %d logins and tokens %v", want.method.Logins(), tokens)
			}

			self := newCaller(t, m.server, clientToken(a))
			data := self.want(200, "GET", "auth/token/lookup-self", nil).Data
			for field, want := range map[string]any{
				"display_name": want.display, "path": "auth/" + path + "/login", "entity_id": a.Auth["entity_id"], "orphan": true, "creation_ttl": 3600.0,
			} {
				if data[field] != want {
					t.Errorf("lookup-self: %s: got %v, want %v", field, data[field], want)
				}
			}
			if meta, _ := data["meta"].(map[string]any); !maps.Equal(meta, metadata) {
				t.Errorf("lookup-self: meta: got %v, want %v", meta, metadata)
			}
			self.want(204, "POST", "auth/token/revoke-self", nil)
			if tokens := want.method.Tokens(); len(tokens) != 1 || tokens[0].ID != clientToken(again) {
				t.Errorf("after revoke-self: got tokens %v", tokens)
			}
		})
	}
	if got := m.server.Count(vaulttest.OpLogin); got != 8 {
		t.Errorf("got %d requests to log in, want 8", got)
	}
}

func TestLoginBehindFaults(t *testing.T) {
	m := enableAll(t, "", vaulttest.TokenOptions{})
	m.server.Seal()
	m.caller.want(503, "POST", "auth/jwt/login", m.bodies["jwt"], "Vault is sealed")
	m.server.Unseal()
	m.server.Inject(vaulttest.Fault{Times: 1, Status: 502, Match: vaulttest.Ops(vaulttest.OpLogin)})
	m.caller.want(502, "POST", "auth/jwt/login", m.bodies["jwt"])
	m.login("jwt")
	if got := m.server.Count(vaulttest.OpLogin); got != 3 || m.jwt.Logins() != 1 {
		t.Errorf("got %d requests and %d logins, want 3 and 1", got, m.jwt.Logins())
	}
}

func TestLoginYields(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{Now: newClock().Now})
	approle := s.EnableAppRole("", "approle")
	anyone := newCaller(t, s, "")
	for _, tt := range []struct {
		name    string
		token   vaulttest.TokenOptions
		auth    fields
		lookup  fields
		warning string
	}{
		{"Vault's defaults", vaulttest.TokenOptions{}, fields{"lease_duration": 768 * 3600.0}, fields{"explicit_max_ttl": 0.0}, ""},
		{"batch", vaulttest.TokenOptions{Type: vaulttest.Batch, TTL: time.Hour},
			fields{"lease_duration": 3600.0, "renewable": false, "token_type": "batch", "accessor": "", "orphan": true}, fields{"type": "batch", "renewable": false}, ""},
		{"periodic", vaulttest.TokenOptions{Period: time.Hour}, fields{"lease_duration": 3600.0, "renewable": true}, fields{"period": 3600.0}, ""},
		{"period over max TTL", vaulttest.TokenOptions{Period: time.Hour, MaxTTL: 30 * time.Minute}, fields{"lease_duration": 1800.0}, fields{"period": 3600.0, "ttl": 1800.0},
			`period of "1h" exceeded the effective max_ttl of "30m"; period value is capped accordingly`},
		{"TTL over max TTL", vaulttest.TokenOptions{TTL: time.Hour, MaxTTL: 90 * time.Second}, fields{"lease_duration": 90.0}, fields{"explicit_max_ttl": 0.0},
			`TTL of "1h" exceeded the effective max_ttl of "1m30s"; TTL value is capped accordingly`},
		{"TTL over explicit max TTL", vaulttest.TokenOptions{TTL: time.Hour, ExplicitMaxTTL: 30 * time.Minute}, fields{"lease_duration": 1800.0}, fields{"explicit_max_ttl": 1800.0},
			`TTL of "1h" exceeded the effective max_ttl of "30m"; TTL value is capped accordingly`},
		{"TTL over Vault's own", vaulttest.TokenOptions{TTL: 1000 * time.Hour}, fields{"lease_duration": 768 * 3600.0}, nil,
			`TTL of "1000h" exceeded the effective max_ttl of "768h"; TTL value is capped accordingly`},
		{"three uses", vaulttest.TokenOptions{NumUses: 3}, fields{"num_uses": 3.0}, fields{"num_uses": 2.0}, ""}, // lookup-self is one
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := anyone.want(200, "POST", "auth/approle/login", fields{"role_id": approle.SetRole(tt.name, tt.token), "secret_id": approle.NewSecretID(tt.name)})
			if warning := strings.Join(a.Warnings, "|"); warning != tt.warning {
				t.Errorf("got warning %q, want %q", warning, tt.warning)
			}
			data := newCaller(t, s, clientToken(a)).want(200, "GET", "auth/token/lookup-self", nil).Data
			for field, want := range tt.auth {
				if a.Auth[field] != want {
					t.Errorf("login: %s: got %v, want %v", field, a.Auth[field], want)
				}
			}
			for field, want := range tt.lookup {
				if data[field] != want {
					t.Errorf("lookup-self: %s: got %v, want %v", field, data[field], want)
				}
			}
		})
	}
	id := approle.SetRole("bare", vaulttest.TokenOptions{NoDefaultPolicy: true})
	auth := anyone.want(200, "POST", "auth/approle/login", fields{"role_id": id, "secret_id": approle.NewSecretID("bare")}).Auth
	if policies, ok := auth["policies"].([]any); !ok || len(policies) != 0 || auth["token_policies"] != nil {
		t.Errorf("no policies: got %v and %v", auth["policies"], auth["token_policies"])
	}
}

func TestRoleRules(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	kubernetes := s.EnableKubernetes("", "kubernetes")
	role := vaulttest.TokenOptions{Rules: vaulttest.TransitPolicy("transit", "kek")}
	kubernetes.SetRole("kms", role)
	a := newCaller(t, s, "").want(200, "POST", "auth/kubernetes/login", fields{"role": "kms", "jwt": kubernetes.NewJWT("kms")})
	c := newCaller(t, s, clientToken(a))
	if got := c.decrypt("kek", c.encrypt("kek", "seed")); got != "seed" {
		t.Errorf("decrypt: got %q", got)
	}
	// A role's rules are a normal policy: existing tokens get the new rules.
	role.Rules = vaulttest.TransitPolicy("transit", "other")
	kubernetes.SetRole("kms", role)
	c.want(403, "GET", "transit/keys/kek", nil, denied)
}

func TestRenewTokenOfLogin(t *testing.T) {
	for _, path := range []string{"team/approle", "kubernetes", "jwt", "cert"} {
		t.Run(path, func(t *testing.T) {
			role := vaulttest.TokenOptions{TTL: time.Hour, MaxTTL: 2 * time.Hour, Policies: []string{"kms"}}
			m := enableAll(t, "", role)
			m.caller.token = clientToken(m.login(path))
			m.server.Advance(30 * time.Minute)
			a := m.caller.want(200, "POST", "auth/token/renew-self", nil)
			if a.Auth["lease_duration"] != 3600.0 || a.Auth["metadata"] == nil || a.Auth["entity_id"] == "" || a.MountType != "token" {
				t.Errorf("renewed: got %v, mount_type %q", a.Auth, a.MountType)
			}
			a = m.caller.want(200, "POST", "auth/token/renew-self", fields{"increment": "5h"})
			if a.Auth["lease_duration"] != 5400.0 || len(a.Warnings) != 1 || a.Warnings[0] != `TTL of "5h" exceeded the effective max_ttl of "1h30m"; TTL value is capped accordingly` {
				t.Errorf("renewed over max TTL: got %v, warnings %q", a.Auth["lease_duration"], a.Warnings)
			}

			// A renewal follows the current role.
			role.TTL = 10 * time.Minute
			m.setRole(path, role)
			if a = m.caller.want(200, "POST", "auth/token/renew-self", nil); a.Auth["lease_duration"] != 600.0 {
				t.Errorf("renewed by the changed role: got %v", a.Auth["lease_duration"])
			}
			m.server.Advance(10 * time.Minute)
			m.caller.want(403, "POST", "auth/token/renew-self", nil, deadToken)
		})
	}
}

func (m *methods) setRole(path string, token vaulttest.TokenOptions) {
	switch path {
	case "team/approle":
		m.appRole.SetRole("kms", token)
	case "kubernetes":
		m.kubernetes.SetRole("kms", token)
	case "jwt":
		m.jwt.SetRole("kms", token)
	case "cert":
		m.cert.SetRole("kms", vaulttest.CertOptions{Token: token})
	}
}

// Login in one namespace, keys in its child: policies use paths relative to the
// token's namespace.
func TestTokenOfParentNamespace(t *testing.T) {
	m := enableAll(t, "a", vaulttest.TokenOptions{TTL: time.Hour, Rules: vaulttest.TransitPolicy("b/transit", "kek")})
	m.server.Mount("a/b", "transit").CreateKey("kek")
	m.server.Mount("a", "transit").CreateKey("kek")
	m.server.CreateKey("kek")
	for path := range m.bodies {
		t.Run(path, func(t *testing.T) {
			c := newCaller(t, m.server, clientToken(m.login(path)))
			c.namespace = "a/b"
			if got := c.decrypt("kek", c.encrypt("kek", "seed")); got != "seed" {
				t.Errorf("decrypt: got %q", got)
			}
			// Requests about the token itself must name the token's namespace.
			c.want(403, "GET", "auth/token/lookup-self", nil, denied)
			c.namespace = "a"
			if got := c.want(200, "GET", "auth/token/lookup-self", nil).Data["namespace_path"]; got != "a/" {
				t.Errorf("namespace_path: got %v", got)
			}
			if path != "cert" { // cert needs the certificate
				c.want(200, "POST", "auth/token/renew-self", nil)
			}
			c.want(403, "GET", "transit/keys/kek", nil, denied)
			c.want(200, "GET", "b/transit/keys/kek", nil)
			c.namespace = ""
			c.want(403, "GET", "transit/keys/kek", nil)

			m.caller.namespace = ""
			m.caller.want(200, "POST", "a/auth/"+path+"/login", m.bodies[path])
			m.caller.want(403, "POST", "auth/"+path+"/login", m.bodies[path], "permission denied")
			m.caller.namespace = "a/b"
			m.caller.want(403, "POST", "auth/"+path+"/login", m.bodies[path], "permission denied")
			m.caller.namespace = "a"
		})
	}
}

func TestLoginSecrets(t *testing.T) {
	m := enableAll(t, "", vaulttest.TokenOptions{})
	var secrets []string
	for path, body := range m.bodies {
		secrets = append(secrets, clientToken(m.login(path)))
		for _, field := range []string{"secret_id", "jwt"} {
			if secret, ok := body[field].(string); ok {
				secrets = append(secrets, secret)
			}
		}
	}
	// Rejected credentials, and those that never reach Vault, are secrets too.
	m.caller.want(400, "POST", "auth/jwt/login", fields{"role": "kms", "jwt": "a jwt of another client"})
	m.server.FailNext(1, 500, "")
	m.caller.want(500, "POST", "auth/team/approle/login", fields{"role_id": "x", "secret_id": "a secret ID of another client"})
	secrets = append(secrets, "a jwt of another client", "a secret ID of another client", m.kubernetes.NewJWT("kms"))
	if len(secrets) != 10 {
		t.Fatalf("the test has %d secrets", len(secrets))
	}
	for _, secret := range secrets {
		if got, found := m.server.Leak("a log with " + secret + " in it"); !found || got != secret {
			t.Errorf("Leak found %[2]q, want %[1]q", secret, got)
		}
	}
}

func TestRoleMistakesPanic(t *testing.T) {
	m := enableAll(t, "", vaulttest.TokenOptions{})
	for name, write := range map[string]func(){
		"namespace":      func() { m.jwt.SetRole("x", vaulttest.TokenOptions{Namespace: "x"}) },
		"not renewable":  func() { m.jwt.SetRole("x", vaulttest.TokenOptions{NotRenewable: true}) },
		"periodic batch": func() { m.jwt.SetRole("x", vaulttest.TokenOptions{Type: vaulttest.Batch, Period: time.Hour}) },
		"limited batch":  func() { m.jwt.SetRole("x", vaulttest.TokenOptions{Type: vaulttest.Batch, NumUses: 1}) },
		"kind":           func() { m.server.EnableJWT("", "kubernetes") },
		"no such role":   func() { m.appRole.NewSecretID("nope") },
		"not PEM":        func() { m.cert.SetRole("x", vaulttest.CertOptions{Certificate: []byte("x")}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			write()
		}()
	}
	if again := m.server.EnableJWT("", "/jwt/"); again.Logins() != 0 {
		t.Error("enabling a method again: want the existing one")
	}
	m.login("jwt")
}

func TestRoleID(t *testing.T) {
	s := vaulttest.Start(t)
	approle := s.EnableAppRole("", "approle")
	first := approle.SetRole("kms", vaulttest.TokenOptions{})
	secret := approle.NewSecretID("kms")
	other := approle.SetRole("other", vaulttest.TokenOptions{})
	if again := approle.SetRole("kms", vaulttest.TokenOptions{}); first == "" || again != first || other == first {
		t.Errorf("role IDs: got %q, then %q; of another role %q", first, again, other)
	}
	c := newCaller(t, s, "")
	c.want(200, "POST", "auth/approle/login", fields{"role_id": first, "secret_id": secret})
	c.want(400, "POST", "auth/approle/login", fields{"role_id": other, "secret_id": secret})
}

func TestDefaultRole(t *testing.T) {
	s := vaulttest.Start(t)
	jwt := s.EnableJWT("", "jwt")
	jwt.SetRole("kms", vaulttest.TokenOptions{})
	c, body := newCaller(t, s, ""), fields{"jwt": jwt.NewJWT("kms") + "\n"}
	c.want(400, "POST", "auth/jwt/login", body, "missing role")
	jwt.SetDefaultRole("kms")
	c.want(200, "POST", "auth/jwt/login", body)
}

func TestAcceptedJWT(t *testing.T) {
	s := vaulttest.Start(t)
	kubernetes := s.EnableKubernetes("", "kubernetes")
	kubernetes.SetRole("kms", vaulttest.TokenOptions{})
	kubernetes.SetRole("other", vaulttest.TokenOptions{})
	c := newCaller(t, s, "")
	login := func(status int, role string) {
		t.Helper()
		c.want(status, "POST", "auth/kubernetes/login", fields{"role": role, "jwt": "a.b.c"})
	}
	login(403, "kms")
	kubernetes.Accept("kms", "a.b.c")
	login(200, "kms")
	login(403, "other")
	kubernetes.Accept("other", "a.b.c")
	login(200, "kms")
	login(200, "other")
}

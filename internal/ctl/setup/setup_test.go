// SPDX-License-Identifier: Apache-2.0

package setup_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/setup"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

const (
	ca      = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
	otherCA = "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n"
)

func options() setup.Options {
	o := setup.Defaults()
	o.PluginAddress = "https://vault.example:8200"
	o.KubernetesHost, o.KubernetesCAFile, o.KubernetesCA = "https://10.0.0.1:6443", "ca.crt", ca
	return o
}

// administrator returns a client with an administrator's rights.
type administrator struct {
	*vaultadmin.Client
	t      *testing.T
	server *vaulttest.Server
}

// empty is a Vault without engines and auth methods.
func empty(t *testing.T) administrator {
	t.Helper()
	s := vaulttest.Start(t)
	s.Unmount("", "transit")
	s.Unmount("", "secret")
	c, err := vaultadmin.Dial(vaultadmin.Config{Address: s.URL()}.WithToken(s.RootToken()))
	if err != nil {
		t.Fatal(err)
	}
	return administrator{Client: c, t: t, server: s}
}

// complete is a Vault with the complete setup.
func complete(t *testing.T) administrator {
	t.Helper()
	a := empty(t)
	if err := a.make(options()).Apply(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	a.server.ResetCounts()
	return a
}

// make plans, and checks that planning writes nothing.
func (a administrator) make(o setup.Options) setup.Plan {
	a.t.Helper()
	p, err := a.try(o)
	if err != nil {
		a.t.Fatal(err)
	}
	return p
}

func (a administrator) try(o setup.Options) (setup.Plan, error) {
	a.t.Helper()
	a.server.ResetCounts()
	p, err := setup.Make(a.t.Context(), a, o)
	reads := 0
	for _, op := range []string{vaulttest.OpListMounts, vaulttest.OpListAuth, vaulttest.OpReadKey, vaulttest.OpReadPolicy,
		vaulttest.OpKVRead, vaulttest.OpReadAuthConfig, vaulttest.OpReadRole, vaulttest.OpLookupSelf, vaulttest.OpLookup} {
		reads += a.server.Count(op)
	}
	if all := a.server.Total(); all != reads {
		a.t.Errorf("planning made %d requests that are not reads", all-reads)
	}
	return p, err
}

// set writes to Vault directly.
func (a administrator) set(path string, body map[string]any) {
	a.t.Helper()
	if _, err := a.Write(a.t.Context(), path, body); err != nil {
		a.t.Fatal(err)
	}
}

// newKey replaces Trousseau's key with another one.
func (a administrator) newKey(body map[string]any) {
	a.t.Helper()
	a.server.Transit().Key("trousseau-kms-vault").Delete()
	a.set(key, body)
}

const (
	key    = "transit/keys/trousseau-kms-vault"
	config = "auth/kubernetes/config"
	role   = "auth/kubernetes/role/trousseau"
)

func actions(p setup.Plan) (all []string) {
	for _, s := range p.Steps {
		if s.Action != setup.Keep {
			all = append(all, strings.Join(append([]string{string(s.Action) + " " + s.What}, s.Details...), " | "))
		}
	}
	return all
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name   string
		vault  func(administrator)
		change func(*setup.Options)
		want   []string
	}{
		{name: "all is there", want: nil},
		{name: "a key that can be deleted", vault: func(a administrator) { a.set(key+"/config", map[string]any{"deletion_allowed": true}) },
			want: []string{"change key transit/keys/trousseau-kms-vault | deletion_allowed: false, was true"}},
		{name: "too much in a policy", vault: func(a administrator) {
			a.set("sys/policies/acl/trousseau-agent", map[string]any{"policy": "path \"secret/data/trousseau/config\" {\n  capabilities = [\"read\"]\n}\npath \"secret/*\" {\n  capabilities = [\"list\"]\n}\n"})
		}, want: []string{`change policy trousseau-agent | - path "secret/*" { | - capabilities = ["list"]`}},
		{name: "another CA", vault: func(a administrator) {
			a.set(config, map[string]any{"kubernetes_host": options().KubernetesHost, "kubernetes_ca_cert": otherCA, "disable_local_ca_jwt": true})
		},
			want: []string{"change auth/kubernetes/config | kubernetes_ca_cert: replaced by ca.crt"}},
		{name: "a role for more", vault: func(a administrator) {
			a.set(role, map[string]any{"bound_service_account_namespaces": "kube-system,default", "token_period": "24h"})
		}, want: []string{"change role auth/kubernetes/role/trousseau | bound_service_account_namespaces: kube-system, was default,kube-system | token_period: 0, was 86400s"}},
		{name: "a second key", change: func(o *setup.Options) { o.Keys = append(o.Keys, "old") }, want: []string{
			"create key transit/keys/old | aes256-gcm96, not exportable, cannot be deleted",
			`change policy trousseau | + path "transit/decrypt/old" { | + path "transit/keys/old" {`,
		}},
		{name: "login", change: func(o *setup.Options) { o.Login, o.Role = true, "login" }, want: []string{
			"create role auth/kubernetes/role/login | bound_service_account_names=trousseau | bound_service_account_namespaces=kube-system | token_policies=trousseau | token_period=24h",
		}},
		{name: "other names", change: func(o *setup.Options) {
			o.WithoutKubernetes, o.KubernetesHost = true, ""
			o.TransitMount, o.KVMount, o.Policy, o.AgentPolicy = "t", "k", "p", "a"
		}, want: []string{
			"create transit engine at t/", "create key t/keys/trousseau-kms-vault | aes256-gcm96, not exportable, cannot be deleted",
			`create policy p | + path "t/encrypt/trousseau-kms-vault" { | + capabilities = ["update"] | + } | + path "t/decrypt/trousseau-kms-vault" { | + capabilities = ["update"] | + } | + path "t/keys/trousseau-kms-vault" { | + capabilities = ["read"] | + }`,
			`create policy a | + path "k/data/trousseau/config" { | + capabilities = ["read"] | + }`,
			"create KV engine, version 2, at k/",
			"create secret k/trousseau/config | transitkeyname=trousseau-kms-vault | vaultaddress=https://vault.example:8200 | ttl=30s | vaulttoken: a new orphan token with policy p and period 768h",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, o := complete(t), options()
			if c.vault != nil {
				c.vault(a)
			}
			if c.change != nil {
				c.change(&o)
			}
			p := a.make(o)
			if got := actions(p); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			for _, s := range p.Steps {
				if (s.Command == "") != (s.Action == setup.Keep) {
					t.Errorf("%s %s has command %q", s.Action, s.What, s.Command)
				}
			}
		})
	}
}

// TestRefusals checks that harmful changes are not planned.
func TestRefusals(t *testing.T) {
	const otherKey = `: name another key with --key; if this one is in use already, the documentation says under "keynames" how to change keys`
	type body = map[string]any
	for _, c := range []struct {
		name  string
		vault func(administrator)
		want  string
	}{
		{"type", func(a administrator) { a.newKey(body{"type": "rsa-4096"}) }, "key " + key + " is of type rsa-4096, not aes256-gcm96" + otherKey},
		{"exportable", func(a administrator) { a.newKey(body{"exportable": true}) }, "key " + key + " is exportable, so it may have left Vault" + otherKey},
		{"derived", func(a administrator) { a.newKey(body{"derived": true}) }, "key " + key + " is derived, so every request would need a context" + otherKey},
		{"backup", func(a administrator) { a.newKey(body{"allow_plaintext_backup": true}) }, "key " + key + " allows backups in plaintext, so it may have left Vault" + otherKey},
		{"another engine", func(a administrator) {
			a.server.Unmount("", "transit")
			a.set("sys/mounts/transit", body{"type": "ssh"})
		}, "the engine at transit/ is of type ssh: name another path with --transit-mount"},
		{"kv version 1", func(a administrator) {
			a.server.Unmount("", "secret")
			a.set("sys/mounts/secret", body{"type": "kv", "options": body{"version": "1"}})
		}, "the KV engine at secret/ is of version 1: name another path with --kv-mount, or see `vault kv enable-versioning -h`"},
		{"another key's secret", func(a administrator) { a.server.PutSecret("trousseau/config", body{"transitkeyname": "kek"}) },
			`secret secret/trousseau/config names key "kek", not "trousseau-kms-vault": data that is encrypted with it could no longer be decrypted; give --key=kek first, or another --kv-path for another cluster`},
		{"another auth method", func(a administrator) {
			a.server.EnableKubernetes("", "kubernetes").Disable()
			a.set("sys/auth/kubernetes", body{"type": "jwt"})
		}, "the auth method at auth/kubernetes/ is of type jwt: name another path with --auth-mount"},
		{"another cluster", func(a administrator) {
			a.set(config, body{"kubernetes_host": "https://other:6443", "kubernetes_ca_cert": ca, "disable_local_ca_jwt": true})
		}, "auth/kubernetes/config is for the cluster at https://other:6443, whose clients could no longer log in: name another path with --auth-mount, or give --kubernetes-host=https://other:6443 if it is the same cluster"},
		{"a reviewer", func(a administrator) {
			a.set(config, body{"kubernetes_host": options().KubernetesHost, "kubernetes_ca_cert": ca, "token_reviewer_jwt": "a.b.c"})
		}, "auth/kubernetes/config needs a change (disable_local_ca_jwt: true, was false), which would delete its token_reviewer_jwt or pem_keys: run `vault write auth/kubernetes/config` with these fields as well, or name another path with --auth-mount"},
		{"the plugin's role", func(a administrator) { a.set(role, body{"token_policies": "trousseau"}) },
			"role auth/kubernetes/role/trousseau has policy trousseau, so it is the role of Trousseau itself, which could no longer use the key: give another --role, or delete this one if it is unused"},
	} {
		a := complete(t)
		c.vault(a)
		if _, err := a.try(options()); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v\nwant %s", c.name, err, c.want)
		}
	}
}

// TestSecretWithoutAToken checks that the secret is not changed, and that the hint
// says what to do.
func TestSecretWithoutAToken(t *testing.T) {
	for _, c := range []struct {
		token string
		want  string
	}{
		{"", "it has no vaulttoken: issue a new one with `trousseauctl rotate-token`"},
		{"hvs.dead", "its vaulttoken is revoked or expired, or you may not look it up: issue a new one with `trousseauctl rotate-token`"},
	} {
		a := complete(t)
		a.server.PutSecret("trousseau/config", map[string]any{"transitkeyname": options().Keys[0], "vaulttoken": c.token})
		p := a.make(options())
		i := slices.IndexFunc(p.Steps, func(s setup.Step) bool { return s.What == "secret secret/trousseau/config" })
		if s := p.Steps[i]; s.Action != setup.Keep || s.Hint != c.want {
			t.Errorf("got %s %q, want %s %q", s.Action, s.Hint, setup.Keep, c.want)
		}
		if p.Changes() != 0 {
			t.Errorf("%d changes, want none", p.Changes())
		}
	}
}

// TestLoginKeepsTheAgents checks that --login does not reassign the agent's role.
func TestLoginKeepsTheAgents(t *testing.T) {
	o := options()
	o.Login = true
	const want = "role auth/kubernetes/role/trousseau has policy trousseau-agent, so it is the role of the Vault Agent, which could no longer read the secret: give another --role"
	if _, err := complete(t).try(o); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v\nwant %s…", err, want)
	}
}

// TestApply checks that the secret is written once the KV engine is ready, and that
// a token which is certainly not stored is revoked.
func TestApply(t *testing.T) {
	never, stored := vaulttest.Ops(), vaulttest.Ops(vaulttest.OpKVWrite)
	for _, c := range []struct {
		name  string
		fault vaulttest.Fault
		want  string // text in the error; "" for none
		alive int
	}{
		{name: "at once", fault: vaulttest.Fault{Match: never}, alive: 1},
		{name: "not ready at first", fault: vaulttest.Fault{Match: stored, Times: 2, Status: http.StatusBadRequest,
			Body: `{"errors":["Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly."]}`}, alive: 1},
		{name: "denied", fault: vaulttest.Fault{Match: stored, Status: http.StatusForbidden}, want: "permission denied (403)"},
		{name: "no answer", fault: vaulttest.Fault{Match: stored, Cut: vaulttest.CutReset}, want: "; the token created for it has accessor ", alive: 1},
	} {
		a := empty(t)
		a.server.Inject(c.fault)
		err := a.make(options()).Apply(t.Context(), nil)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		tokens := a.server.Tokens()
		if len(tokens) != c.alive {
			t.Errorf("%s: %d live tokens, want %d", c.name, len(tokens), c.alive)
		}
		if c.name == "no answer" && err != nil && len(tokens) > 0 && !strings.HasSuffix(err.Error(), tokens[0].Accessor) {
			t.Errorf("%s: want accessor %s at the end of %v", c.name, tokens[0].Accessor, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*setup.Options){
		"--key is missing":                    func(o *setup.Options) { o.Keys = nil },
		`--key: "a*" is not a valid name`:     func(o *setup.Options) { o.Keys = []string{"a*"} },
		`--kv-path: "/a" is not a valid name`: func(o *setup.Options) { o.KVPath = "/a" },
		"--agent-policy: \"trousseau\"":       func(o *setup.Options) { o.AgentPolicy = "trousseau" },
		"--kubernetes-host: give":             func(o *setup.Options) { o.KubernetesHost = "" },
		"--kubernetes-ca: give":               func(o *setup.Options) { o.KubernetesCA = "" },
	} {
		o := options()
		change(&o)
		if err := o.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s…", err, want)
		}
	}
}

func TestPolicyInANamespace(t *testing.T) {
	want := `path "a/b/transit/encrypt/k" {
  capabilities = ["update"]
}

path "a/b/transit/decrypt/k" {
  capabilities = ["update"]
}

path "a/b/transit/keys/k" {
  capabilities = ["read"]
}
`
	if got := setup.Policy("/a/b/", "transit", []string{"k"}); got != want {
		t.Errorf("got\n%s", got)
	}
}

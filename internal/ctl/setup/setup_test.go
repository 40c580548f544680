// SPDX-License-Identifier: Apache-2.0

package setup_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
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
	if err := a.make(options()).Apply(t.Context()); err != nil {
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

func findings(p setup.Plan) (all []string) {
	for _, f := range p.Findings {
		all = append(all, strings.Join([]string{string(f.Severity), f.ID, f.Subject, f.Text, f.Do}, " | "))
	}
	return all
}

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
		finds  []string
	}{
		{name: "all is there", want: nil},
		{name: "a key that can be deleted", vault: func(a administrator) { a.set(key+"/config", map[string]any{"deletion_allowed": true}) },
			want: []string{"change key transit/keys/trousseau-kms-vault | deletion_allowed: false, was true"}},
		{name: "more in a policy", vault: func(a administrator) { a.policy("trousseau-agent", more) },
			finds: []string{moreFound}},
		{name: "more in a policy, which is removed", vault: func(a administrator) { a.policy("trousseau-agent", more) },
			change: func(o *setup.Options) { o.Remove = []string{"secret/*"} },
			want:   []string{`change policy trousseau-agent | - path "secret/*": list`}},
		{name: "more on a needed path, which is removed", vault: func(a administrator) {
			a.policy("trousseau-agent", "path \"secret/data/trousseau/config\" { capabilities = [\"read\", \"sudo\"] }")
		}, change: func(o *setup.Options) { o.Remove = []string{"secret/data/trousseau/config"} },
			want: []string{`change policy trousseau-agent | - path "secret/data/trousseau/config": read, sudo | + path "secret/data/trousseau/config": read`}},
		{name: "a wildcard that grants some", vault: func(a administrator) {
			a.policy("trousseau-agent", "path \"secret/data/+/config\" { capabilities = [\"list\"] }")
		}, want: []string{`change policy trousseau-agent | + path "secret/data/trousseau/config": list, read`},
			finds: []string{strings.NewReplacer("'secret/*'", "secret/data/+/config", "secret/*", "secret/data/+/config").Replace(moreFound)}},
		{name: "a wildcard that grants all", vault: func(a administrator) {
			a.policy("trousseau-agent", "path \"secret/*\" { capabilities = [\"read\", \"list\"] }")
		},
			finds: []string{strings.NewReplacer("list", "read, list").Replace(moreFound)}},
		{name: "nothing to remove", change: func(o *setup.Options) { o.Remove = []string{"secret/"} },
			finds: []string{"warning | nothing-to-remove | secret/ | there is nothing of this name to remove in the policies and the role | "}},
		{name: "another CA", vault: func(a administrator) {
			a.set(config, map[string]any{"kubernetes_host": options().KubernetesHost, "kubernetes_ca_cert": otherCA, "disable_local_ca_jwt": true})
		},
			want: []string{"change auth/kubernetes/config | kubernetes_ca_cert: adds those of ca.crt"}},
		{name: "a local CA", vault: func(a administrator) {
			a.set(config, map[string]any{"kubernetes_host": options().KubernetesHost, "kubernetes_ca_cert": ca})
		}, finds: []string{"warning | reviews-as-vault | auth/kubernetes/config | disable_local_ca_jwt is false: a Vault in a pod reviews tokens as its own ServiceAccount, and trusts the CA of its own cluster | " +
			"if Trousseau cannot log in, set it to true, together with all the other fields"}},
		{name: "no CA", vault: func(a administrator) {
			a.set(config, map[string]any{"kubernetes_host": options().KubernetesHost, "disable_local_ca_jwt": true})
		}, finds: []string{"warning | no-ca | auth/kubernetes/config | kubernetes_ca_cert is empty, so Vault trusts other CAs | if Trousseau cannot log in, set it to ca.crt, together with all the other fields"}},
		{name: "a role for more", vault: func(a administrator) {
			a.set(role, map[string]any{"bound_service_account_namespaces": "kube-system,default", "token_period": "24h"})
		}, finds: []string{"warning | role-admits-more | role " + role + " | it also has bound_service_account_namespaces=default | if no client needs it, run this with --remove bound_service_account_namespaces=default"}},
		{name: "a role for more, which is removed", vault: func(a administrator) {
			a.set(role, map[string]any{"bound_service_account_namespaces": "kube-system,default"})
		}, change: func(o *setup.Options) { o.Remove = []string{"bound_service_account_namespaces=default"} },
			want: []string{"change role auth/kubernetes/role/trousseau | bound_service_account_namespaces: kube-system, was default,kube-system"}},
		{name: "a role for another", vault: func(a administrator) {
			a.set(role, map[string]any{"bound_service_account_names": "app", "token_policies": "app"})
		}, want: []string{"change role auth/kubernetes/role/trousseau | bound_service_account_names: app,trousseau, was app | token_policies: app,trousseau-agent, was app"},
			finds: []string{
				"warning | role-admits-more | role " + role + " | it also has bound_service_account_names=app | if no client needs it, run this with --remove bound_service_account_names=app",
				"warning | role-admits-more | role " + role + " | it also has token_policies=app | if no client needs it, run this with --remove token_policies=app",
			}},
		{name: "a role for all", vault: func(a administrator) { a.set(role, map[string]any{"bound_service_account_names": "*"}) },
			finds: []string{"warning | role-admits-more | role " + role + " | it also has bound_service_account_names=* | if no client needs it, run this with --remove 'bound_service_account_names=*'"}},
		{name: "a second key", change: func(o *setup.Options) { o.Keys = append(o.Keys, "old") }, want: []string{
			"create key transit/keys/old | aes256-gcm96, not exportable, cannot be deleted",
			`change policy trousseau | + path "transit/decrypt/old": update | + path "transit/keys/old": read`,
		}},
		{name: "login", change: func(o *setup.Options) { o.Login, o.Role = true, "login" }, want: []string{
			"create role auth/kubernetes/role/login | bound_service_account_names=trousseau | bound_service_account_namespaces=kube-system | token_policies=trousseau | token_period=24h",
		}},
		{name: "other names", change: func(o *setup.Options) {
			o.WithoutKubernetes, o.KubernetesHost = true, ""
			o.TransitMount, o.KVMount, o.Policy, o.AgentPolicy = "t", "k", "p", "a"
		}, want: []string{
			"create transit engine at t/", "create key t/keys/trousseau-kms-vault | aes256-gcm96, not exportable, cannot be deleted",
			`create policy p | + path "t/encrypt/trousseau-kms-vault": update | + path "t/decrypt/trousseau-kms-vault": update | + path "t/keys/trousseau-kms-vault": read`,
			`create policy a | + path "k/data/trousseau/config": read`,
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
			if got := findings(p); !slices.Equal(got, c.finds) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.finds, "\n"))
			}
			if err := p.Apply(t.Context()); err != nil {
				t.Error(err)
			}
			if again := a.make(o); again.Count(setup.Left) != 0 {
				t.Errorf("a second run would do %s", strings.Join(actions(again), "\n"))
			}
			for _, s := range p.Steps {
				if (s.Command == "") != (s.Action == setup.Keep) {
					t.Errorf("%s %s has command %q", s.Action, s.What, s.Command)
				}
			}
		})
	}
}

// more is a policy with more than the agent's.
const (
	more = "path \"secret/data/trousseau/config\" {\n  capabilities = [\"read\"]\n}\n# for backups\npath \"secret/*\" {\n  capabilities = [\"list\"]\n}\n"

	moreFound = "warning | policy-grants-more | policy trousseau-agent | it also has path \"secret/*\": list | " +
		"if no cluster needs it, run this with --remove 'secret/*'; if another cluster needs it, give each cluster its own names with --cluster"
)

func (a administrator) policy(name, text string) {
	a.t.Helper()
	a.set("sys/policies/acl/"+name, map[string]any{"policy": text})
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
		}, "the KV engine at secret/ is KV version 1, not 2: name another path with --kv-mount, or see `vault kv enable-versioning -h`"},
		{"another key's secret", func(a administrator) { a.server.PutSecret("trousseau/config", body{"transitkeyname": "kek"}) },
			`secret secret/trousseau/config names key "kek", not "trousseau-kms-vault": data that is encrypted with it could no longer be decrypted; give --key=kek first, or --cluster or another --kv-path for another cluster`},
		{"another auth method", func(a administrator) {
			a.server.EnableKubernetes("", "kubernetes").Disable()
			a.set("sys/auth/kubernetes", body{"type": "jwt"})
		}, "the auth method at auth/kubernetes/ is of type jwt: name another path with --auth-mount"},
		{"another cluster", func(a administrator) {
			a.set(config, body{"kubernetes_host": "https://other:6443", "kubernetes_ca_cert": ca, "disable_local_ca_jwt": true})
		}, "auth/kubernetes/config is for the cluster at https://other:6443, whose clients could no longer log in: give --cluster or another --auth-mount, or --kubernetes-host=https://other:6443 if it is the same cluster"},
		{"another cluster, with a password", func(a administrator) {
			a.set(config, body{"kubernetes_host": "https://user:password@other:6443", "kubernetes_ca_cert": ca, "disable_local_ca_jwt": true})
		}, "auth/kubernetes/config is for the cluster at https://user:xxxxx@other:6443, whose clients could no longer log in: give --cluster or another --auth-mount, or --kubernetes-host=https://user:xxxxx@other:6443 if it is the same cluster"},
		{"a reviewer", func(a administrator) {
			a.set(config, body{"kubernetes_host": options().KubernetesHost, "kubernetes_ca_cert": otherCA, "token_reviewer_jwt": "a.b.c"})
		}, "auth/kubernetes/config needs a change (kubernetes_ca_cert: adds those of ca.crt), which would delete its token_reviewer_jwt: run `vault write auth/kubernetes/config` with this field as well, or name another path with --auth-mount"},
		{"the plugin's role", func(a administrator) { a.set(role, body{"token_policies": "trousseau"}) },
			"role auth/kubernetes/role/trousseau has policy trousseau, so it is the role of Trousseau itself, and must not become that of both: give another --role, or delete this one if it is unused"},
		{"a policy that denies", func(a administrator) {
			a.policy("trousseau", "path \"transit/keys/+\" { capabilities = [\"deny\"] }")
		}, "policy trousseau denies transit/keys/trousseau-kms-vault, which is needed: take that rule away with --remove, or give another name for the policy"},
	} {
		a := complete(t)
		c.vault(a)
		if _, err := a.try(options()); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v\nwant %s", c.name, err, c.want)
		}
	}
}

// TestPoliciesThatOthersWrote checks a policy that the fake Vault cannot parse.
func TestPoliciesThatOthersWrote(t *testing.T) {
	for text, want := range map[string]string{
		`{"path": {"secret/data/trousseau/config": {"capabilities": ["read"]}}}`: "",
		`{"path": {"secret/data/other": {"capabilities": ["read"]}}}`: `policy trousseau-agent is written in JSON, which this program does not change: ` +
			`give another name for it, or change it yourself: + path "secret/data/trousseau/config": read`,
		"path \"/secret/data/trousseau/config\" {\n policy = \"write\"\n allowed_parameters = { \"*\" = [] }\n}": "",
		`path`: "policy trousseau-agent is not one that this program can parse: give another name for it",
	} {
		a := complete(t)
		a.server.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpReadPolicy), Handle: func(_ string, w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/trousseau-agent") {
				return false
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"request_id": "x", "data": map[string]any{"policy": text}})
			return true
		}})
		p, err := a.try(options())
		if want == "" && (err != nil || p.Count(setup.Left) != 0) || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: got %v %v, want %s", text, actions(p), err, want)
		}
	}
}

// TestNothingIsTakenAway sets up over any policy. A token with it can afterwards do all
// that it could, and what Trousseau needs. The fake Vault decides what a token can do.
func TestNothingIsTakenAway(t *testing.T) {
	paths := []string{
		"transit/encrypt/trousseau-kms-vault", "transit/decrypt/trousseau-kms-vault", "transit/keys/trousseau-kms-vault",
		"transit/encrypt/kek", "transit/keys/kek", "transit/keys/kek/rotate", "secret/data/app",
	}
	rules := append([]string{"transit/*", "transit/keys/*", "transit/keys/trousseau*", "transit/+/trousseau-kms-vault", "+/keys/+", "transit/+/*", "*"}, paths...)
	words := []string{"create", "read", "update", "delete", "list", "sudo"}
	random := rand.New(rand.NewPCG(1, 2))
	a, o := empty(t), setup.Defaults()
	o.WithoutKubernetes, o.Login = true, true
	capabilities := func(token string) map[string]any {
		c, err := vaultadmin.Dial(vaultadmin.Config{Address: a.server.URL()}.WithToken(token))
		if err != nil {
			t.Fatal(err)
		}
		data, err := c.Write(t.Context(), "sys/capabilities-self", map[string]any{"paths": paths})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	token := a.server.CreateToken(vaulttest.TokenOptions{Policies: []string{"trousseau"}}).ID
	for range 200 {
		text := ""
		for range random.IntN(6) {
			text += fmt.Sprintf("path %q { capabilities = [%q, %q] }\n", rules[random.IntN(len(rules))], words[random.IntN(len(words))], words[random.IntN(len(words))])
		}
		a.policy("trousseau", "# before\n"+text)
		before := capabilities(token)
		if err := a.make(o).Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		after := capabilities(token)
		for i, path := range paths {
			need := map[int]string{0: "update", 1: "update", 2: "read"}[i]
			for _, c := range append(before[path].([]any), need) {
				if c != "deny" && c != "" && !slices.Contains(after[path].([]any), c) {
					t.Fatalf("%s: had %v, has %v, needs %q\n%s", path, before[path], after[path], need, text)
				}
			}
		}
		if p := a.make(o); p.Count(setup.Left) != 0 {
			t.Fatalf("a second run would do %v\n%s", actions(p), text)
		}
	}
}

// TestNothingElseIsReset checks that a change of the auth method's configuration keeps
// its other fields, as Vault does not.
func TestNothingElseIsReset(t *testing.T) {
	a := complete(t)
	a.set(config, map[string]any{
		"kubernetes_host": options().KubernetesHost, "kubernetes_ca_cert": otherCA, "disable_local_ca_jwt": true,
		"issuer": "https://issuer", "disable_iss_validation": false, "use_annotations_as_alias_metadata": true,
	})
	if err := a.make(options()).Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	found, err := a.Read(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"kubernetes_ca_cert": otherCA + ca, "disable_local_ca_jwt": "true", "issuer": "https://issuer",
		"disable_iss_validation": "false", "use_annotations_as_alias_metadata": "true",
	} {
		if got := fmt.Sprint(found[field]); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
}

// TestForCluster checks that no two clusters share a name, nor an agent's with a
// plugin's.
func TestForCluster(t *testing.T) {
	d := setup.Defaults()
	seen := map[string]string{d.Policy: "default", d.AgentPolicy: "default"}
	for _, cluster := range []string{"a", "b", "a-b", "kms-vault", "config", "trousseau", "a.agent", "x-agent"} {
		names, err := setup.ForCluster(cluster)
		if err != nil {
			t.Fatal(err)
		}
		for _, flag := range []string{"policy", "agent-policy"} {
			if other, taken := seen[names[flag]]; taken {
				t.Errorf("%s has the policy %s of %s", cluster, names[flag], other)
			}
			seen[names[flag]] = cluster
		}
		for flag, usual := range map[string]string{"key": d.Keys[0], "role": d.Role, "kv-path": d.KVPath, "auth-mount": d.AuthMount} {
			if names[flag] != usual+"-"+cluster {
				t.Errorf("--%s is %s for %s", flag, names[flag], cluster)
			}
		}
		o := options()
		o.Keys, o.Policy, o.AgentPolicy, o.Role, o.KVPath, o.AuthMount = []string{names["key"]}, names["policy"], names["agent-policy"], names["role"], names["kv-path"], names["auth-mount"]
		if err := o.Validate(); err != nil {
			t.Errorf("%s: %v", cluster, err)
		}
	}
	for _, cluster := range []string{"agent", "agent-a", "A", "a/b", "a b", "-a", "a-", "*"} {
		if names, err := setup.ForCluster(cluster); err == nil || !strings.HasPrefix(err.Error(), "--cluster: ") {
			t.Errorf("%s: got %v %v", cluster, names, err)
		}
	}
}

// TestSecretWithoutAToken checks that the secret is not changed, and that a finding
// says what to do.
func TestSecretWithoutAToken(t *testing.T) {
	const what = " | secret secret/trousseau/config | "
	a := complete(t)
	a.server.SetPolicy("silent", nil)
	a.server.SetPolicy("limited", vaulttest.Rules{"sys/*": {"read"}, "transit/*": {"read"}, "auth/kubernetes/*": {"read"}, "secret/*": {"read"}})
	silent := a.server.CreateToken(vaulttest.TokenOptions{Policies: []string{"silent"}, NoDefaultPolicy: true}).ID
	valid := a.server.CreateToken(vaulttest.TokenOptions{Policies: []string{"trousseau"}}).ID
	limited, err := vaultadmin.Dial(vaultadmin.Config{Address: a.server.URL()}.WithToken(a.server.CreateToken(vaulttest.TokenOptions{Policies: []string{"limited"}}).ID))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		token string
		as    *vaultadmin.Client
		want  []string
	}{
		{"", a.Client, []string{"error | token-missing" + what + "it has no vaulttoken | add an empty one (vault kv patch secret/trousseau/config vaulttoken=), then issue a new one with trousseauctl rotate-token"}},
		{"hvs.dead", a.Client, []string{"error | token-dead" + what + "its vaulttoken is revoked or expired | issue a new one with trousseauctl rotate-token"}},
		{silent, a.Client, nil},
		{silent, limited, []string{"warning | token-unknown" + what + "whether its vaulttoken is valid is unknown: neither it nor you may look it up | run this with a token that may update auth/token/lookup"}},
		{valid, limited, nil},
		{"\t" + valid + "\n", limited, nil},
	} {
		a.server.PutSecret("trousseau/config", map[string]any{"transitkeyname": options().Keys[0] + "\n", "vaulttoken": c.token})
		p := administrator{c.as, t, a.server}.make(options())
		if got := findings(p); !slices.Equal(got, c.want) {
			t.Errorf("got %v\nwant %v", got, c.want)
		}
		if p.Count(setup.Left) != 0 {
			t.Errorf("changes %v, want none", actions(p))
		}
	}
}

// TestLoginKeepsTheAgents checks that --login does not reassign the agent's role.
func TestLoginKeepsTheAgents(t *testing.T) {
	o := options()
	o.Login = true
	const want = "role auth/kubernetes/role/trousseau has policy trousseau-agent, so it is the role of the Vault Agent, and must not become that of both: give another --role"
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
		p := a.make(options())
		err := p.Apply(t.Context())
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

// TestDenied checks that the plan tells what is done, what failed and what is left.
func TestDenied(t *testing.T) {
	a := empty(t)
	p := a.make(options())
	a.server.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpWritePolicy), Status: http.StatusForbidden})
	if err := p.Apply(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "policy trousseau: writing sys/policies/acl/trousseau") {
		t.Errorf("got %v", err)
	}
	var states []string
	for _, s := range p.Steps {
		states = append(states, string(s.State))
	}
	if got, want := strings.Join(states, " "), "done done failed left left left left left left"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*setup.Options){
		"--key is missing": func(o *setup.Options) { o.Keys = nil },
		`--key: "a*" is not a valid transit key name`:                  func(o *setup.Options) { o.Keys = []string{"a*"} },
		`--key: "a b" is not a valid transit key name`:                 func(o *setup.Options) { o.Keys = []string{"kek", "a b"} },
		`--key: "a/b" is not a valid transit key name`:                 func(o *setup.Options) { o.Keys = []string{"a/b"} },
		`--key: the value (not shown, it could be a token) belongs in`: func(o *setup.Options) { o.Keys = []string{"hvs." + strings.Repeat("a", 24)} },
		`--transit-mount: "a//b" has an empty segment`:                 func(o *setup.Options) { o.TransitMount = "a//b" },
		`--transit-mount: "a+b" is not a valid name`:                   func(o *setup.Options) { o.TransitMount = "a+b" },
		`--auth-mount: "auth/kubernetes" begins with auth/`:            func(o *setup.Options) { o.AuthMount = "auth/kubernetes" },
		`--namespace: "a/*" is not a valid name`:                       func(o *setup.Options) { o.Namespace = "a/*" },
		`--kv-path: "/a" is not a valid name`:                          func(o *setup.Options) { o.KVPath = "/a" },
		`--policy: "Trousseau": Vault writes`:                          func(o *setup.Options) { o.Policy = "Trousseau" },
		"--agent-policy: \"trousseau\"":                                func(o *setup.Options) { o.AgentPolicy = "trousseau" },
		"--plugin-address: has no scheme":                              func(o *setup.Options) { o.PluginAddress = "vault.example:8200" },
		"--plugin-address: must not have a path":                       func(o *setup.Options) { o.PluginAddress = "https://host/vault" },
		"--plugin-address: contains a user name or password":           func(o *setup.Options) { o.PluginAddress = "https://user:hidden@host" },
		"--plugin-address: must not have a query":                      func(o *setup.Options) { o.PluginAddress = "https://host:8200?x=hidden" },
		"--plugin-address: must begin with https://":                   func(o *setup.Options) { o.PluginAddress = "unix:///run/agent.sock" },
		"--kubernetes-host: give":                                      func(o *setup.Options) { o.KubernetesHost = "" },
		"--kubernetes-host: give the https:// URL":                     func(o *setup.Options) { o.KubernetesHost = "https://user:hidden@host" },
		"--kubernetes-ca: give":                                        func(o *setup.Options) { o.KubernetesCA = "" },
	} {
		o := options()
		change(&o)
		if err := o.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("got %v, want %s…", err, want)
		}
	}
	// As the daemon keeps it.
	o := options()
	if o.PluginAddress = "https://vault.example/ "; o.Validate() != nil || o.PluginAddress != "https://vault.example" {
		t.Errorf("the address is %q", o.PluginAddress)
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
	o := setup.Options{Namespace: "/a/b/", TransitMount: "transit", Keys: []string{"k"}}
	if got := o.PolicyText(); got != want {
		t.Errorf("got\n%s", got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package setup_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/setup"
	"github.com/trousseau-io/trousseau/internal/vaultadmin"
)

// paths is a Vault that only has what is at its paths, and takes no write.
type paths map[string]map[string]any

func (p paths) Read(_ context.Context, path string) (map[string]any, error) { return p[path], nil }

func (p paths) Write(_ context.Context, path string, _ map[string]any) (map[string]any, error) {
	return nil, fmt.Errorf("a write to %s", path)
}

func (p paths) CreateToken(context.Context, vaultadmin.TokenOptions) (vaultadmin.Token, error) {
	return vaultadmin.Token{}, fmt.Errorf("a token is made")
}

func (p paths) Revoke(context.Context, string) error { return fmt.Errorf("a token is revoked") }

const ca = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

func options() setup.Options {
	o := setup.Defaults()
	o.PluginAddress = "https://vault.example:8200"
	o.KubernetesHost, o.KubernetesCAFile, o.KubernetesCA = "https://10.0.0.1:6443", "ca.crt", ca
	return o
}

// complete is a Vault that has all of it, as Vault answers.
func complete(t *testing.T) paths {
	t.Helper()
	text := `{
	"sys/mounts": {"transit/": {"type": "transit"}, "secret/": {"type": "kv", "options": {"version": "2"}}},
	"transit/keys/trousseau-kms-vault": {"type": "aes256-gcm96", "exportable": false, "deletion_allowed": false, "latest_version": 1},
	"sys/policies/acl/trousseau-agent": {"policy": "path \"secret/data/trousseau/config\" { capabilities = [\"read\"] }"},
	"secret/data/trousseau/config": {"data": {"transitkeyname": "trousseau-kms-vault", "vaulttoken": "hvs.x"}, "metadata": {"version": 3}},
	"sys/auth": {"token/": {"type": "token"}, "kubernetes/": {"type": "kubernetes"}},
	"auth/kubernetes/config": {"kubernetes_host": "https://10.0.0.1:6443", "disable_local_ca_jwt": true, "pem_keys": []},
	"auth/kubernetes/role/trousseau": {"bound_service_account_names": ["trousseau"], "bound_service_account_namespaces": ["kube-system"],
		"token_policies": ["trousseau-agent"], "token_ttl": 3600, "token_period": 0}
	}`
	v := paths{}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	v["auth/kubernetes/config"]["kubernetes_ca_cert"] = strings.TrimSpace(ca)
	v["sys/policies/acl/trousseau"] = map[string]any{"policy": setup.Policy("", "transit", setup.Defaults().Keys)}
	return v
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
		vault  func(paths)
		change func(*setup.Options)
		want   []string
	}{
		{name: "all is there", want: nil},
		{name: "a key that can be deleted", vault: func(v paths) { v["transit/keys/trousseau-kms-vault"]["deletion_allowed"] = true },
			want: []string{"change key transit/keys/trousseau-kms-vault | can be deleted: no more"}},
		{name: "too much in a policy", vault: func(v paths) {
			v["sys/policies/acl/trousseau-agent"]["policy"] = "path \"secret/data/trousseau/config\" {\n  capabilities = [\"read\"]\n}\npath \"secret/*\" {\n  capabilities = [\"list\"]\n}\n"
		}, want: []string{`change policy trousseau-agent | - path "secret/*" { | - capabilities = ["list"]`}},
		{name: "another CA", vault: func(v paths) { v["auth/kubernetes/config"]["kubernetes_ca_cert"] = "old" },
			want: []string{"change auth/kubernetes/config | kubernetes_ca_cert: another one, that of ca.crt"}},
		{name: "a role for more", vault: func(v paths) {
			v["auth/kubernetes/role/trousseau"]["bound_service_account_namespaces"] = []any{"kube-system", "default"}
			v["auth/kubernetes/role/trousseau"]["token_period"] = 86400.0
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
			v, o := complete(t), options()
			if c.vault != nil {
				c.vault(v)
			}
			if c.change != nil {
				c.change(&o)
			}
			p, err := setup.Make(t.Context(), v, o)
			if err != nil {
				t.Fatal(err)
			}
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

// TestRefusals: what would do harm is not planned.
func TestRefusals(t *testing.T) {
	const key = "transit/keys/trousseau-kms-vault"
	const otherKey = `: name another key with --key; if this one is in use already, see "keynames" in the README for how to change keys`
	for _, c := range []struct {
		path string
		is   map[string]any
		want string
	}{
		{key, map[string]any{"type": "rsa-4096"}, "key " + key + " is of type rsa-4096, not aes256-gcm96" + otherKey},
		{key, map[string]any{"exportable": true}, "key " + key + " is exportable, so it may have left Vault" + otherKey},
		{key, map[string]any{"derived": true}, "key " + key + " is derived, and would need a context with every request" + otherKey},
		{key, map[string]any{"allow_plaintext_backup": true}, "key " + key + " allows backups in plaintext, so it may have left Vault" + otherKey},
		{"sys/mounts", map[string]any{"transit/": map[string]any{"type": "ssh"}}, "the engine at transit/ is of type ssh: name another path with --transit-mount"},
		{"sys/mounts", map[string]any{"secret/": map[string]any{"type": "kv", "options": map[string]any{"version": "1"}}},
			"the KV engine at secret/ is of version 1: name another path with --kv-mount, or see `vault kv enable-versioning -h`"},
		{"secret/data/trousseau/config", map[string]any{"data": map[string]any{"transitkeyname": "kek"}},
			`secret secret/trousseau/config names key "kek", not "trousseau-kms-vault": what is encrypted with that one could not be read any more; give --key=kek first, or another --kv-path for another cluster`},
		{"sys/auth", map[string]any{"kubernetes/": map[string]any{"type": "jwt"}}, "the auth method at auth/kubernetes/ is of type jwt: name another path with --auth-mount"},
		{"auth/kubernetes/config", map[string]any{"kubernetes_host": "https://other:6443"},
			"auth/kubernetes/config is for the cluster at https://other:6443: who logs in there would be locked out; name another path with --auth-mount, or give --kubernetes-host=https://other:6443 if it is the same cluster"},
		{"auth/kubernetes/config", map[string]any{"token_reviewer_jwt_set": true, "disable_local_ca_jwt": false},
			"auth/kubernetes/config needs a change (disable_local_ca_jwt: true, was false), which would lose its token_reviewer_jwt or pem_keys: make it with `vault write auth/kubernetes/config`, giving these again, or name another path with --auth-mount"},
		{"auth/kubernetes/role/trousseau", map[string]any{"token_policies": []any{"trousseau"}},
			"role auth/kubernetes/role/trousseau is the one of Trousseau itself, by its policy trousseau, which could not use the key any more: give another --role, or delete this one when nobody logs in with it"},
	} {
		v := complete(t)
		maps.Copy(v[c.path], c.is)
		if _, err := setup.Make(t.Context(), v, options()); err == nil || err.Error() != c.want {
			t.Errorf("%s %v: got %v\nwant %s", c.path, c.is, err, c.want)
		}
	}
}

// TestLoginKeepsTheAgents: to set up the other way takes nobody's role.
func TestLoginKeepsTheAgents(t *testing.T) {
	o := options()
	o.Login = true
	const want = "role auth/kubernetes/role/trousseau is the one of the Vault Agent, by its policy trousseau-agent, which could not read the secret any more: give another --role"
	if _, err := setup.Make(t.Context(), complete(t), o); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v\nwant %s…", err, want)
	}
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*setup.Options){
		"--key is missing":               func(o *setup.Options) { o.Keys = nil },
		`--key: "a*" is not made of`:     func(o *setup.Options) { o.Keys = []string{"a*"} },
		`--kv-path: "/a" is not made of`: func(o *setup.Options) { o.KVPath = "/a" },
		"--agent-policy: \"trousseau\"":  func(o *setup.Options) { o.AgentPolicy = "trousseau" },
		"--kubernetes-host: give":        func(o *setup.Options) { o.KubernetesHost = "" },
		"--kubernetes-ca: give":          func(o *setup.Options) { o.KubernetesCA = "" },
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

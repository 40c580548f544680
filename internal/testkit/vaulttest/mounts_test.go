// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// listed is what a table of mounts has at a path.
func listed(a *answer, path string) map[string]any {
	m, _ := a.Data[path].(map[string]any)
	return m
}

func TestSecretsEngines(t *testing.T) {
	s := vaulttest.Start(t)
	root := newCaller(t, s, s.RootToken())
	root.want(204, "POST", "sys/mounts/team/transit", fields{"type": "transit"})
	root.want(204, "POST", "sys/mounts/kv", fields{"type": "kv", "options": fields{"version": "2"}})
	root.want(204, "POST", "sys/mounts/old", fields{"type": "kv"})
	root.want(204, "POST", "sys/mounts/ssh", fields{"type": "ssh"})
	a := root.want(200, "GET", "sys/mounts", nil)
	if got, want := strings.Join(slices.Sorted(maps.Keys(a.Data)), " "), "cubbyhole/ identity/ kv/ old/ secret/ ssh/ sys/ team/transit/ transit/"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	options, _ := listed(a, "kv/")["options"].(map[string]any)
	if options["version"] != "2" || listed(a, "team/transit/")["type"] != "transit" || listed(a, "sys/")["type"] != "system" {
		t.Errorf("got %v", a.Data)
	}

	root.want(200, "POST", "team/transit/keys/kek", nil)
	root.want(200, "POST", "team/transit/encrypt/kek", fields{"plaintext": b64("x")})
	root.want(200, "POST", "kv/data/a", fields{"data": fields{}})
	for _, path := range []string{"old/data/a", "ssh/keys/kek"} {
		root.want(404, "POST", path, fields{"data": fields{}}, "1 error occurred:\n\t* unsupported path\n\n")
	}
	root.namespace = "team"
	root.want(404, "GET", "kv/data/a", nil)
}

func TestAuthMethods(t *testing.T) {
	s := vaulttest.Start(t)
	root := newCaller(t, s, s.RootToken())
	root.want(204, "POST", "sys/auth/team/kubernetes", fields{"type": "kubernetes"})
	a := root.want(200, "GET", "sys/auth", nil)
	if len(a.Data) != 2 || listed(a, "team/kubernetes/")["type"] != "kubernetes" || listed(a, "token/")["type"] != "token" {
		t.Errorf("got %v", a.Data)
	}
	// Go code finds it.
	s.EnableKubernetes("", "team/kubernetes").SetRole("kms", vaulttest.TokenOptions{})
	root.want(200, "GET", "auth/team/kubernetes/role/kms", nil)
}

func TestMountsRefused(t *testing.T) {
	s := vaulttest.Start(t)
	root := newCaller(t, s, s.RootToken())
	root.want(204, "POST", "sys/mounts/a/b", fields{"type": "kv"})
	for _, tt := range []struct {
		path, kind, want string
	}{
		{"sys/mounts/x", "", "backend type must be specified as a string"},
		{"sys/mounts/x", "none", "plugin not found in the catalog: none"},
		{"sys/mounts/transit", "transit", "path is already in use at transit/"},
		{"sys/mounts/transit/x", "transit", "path is already in use at transit/"},
		{"sys/mounts/a", "kv", "path is already in use at a/b/"},
		{"sys/mounts/sys/x", "kv", `cannot mount "sys/x/"`},
		{"sys/mounts/x", "kv-v3", `nil backend of type "kv" returned from factory`},
		{"sys/auth/x", "", "backend type must be specified as a string"},
		{"sys/auth/x", "transit", "plugin not found in the catalog: transit"},
		{"sys/auth/token", "jwt", "path is already in use at token/"},
	} {
		root.want(400, "POST", tt.path, fields{"type": tt.kind}, tt.want)
	}
}

// TestEnablingAuthNeedsSudo: the rest of the administrator's side does not.
func TestEnablingAuthNeedsSudo(t *testing.T) {
	s := vaulttest.Start(t)
	s.SetPolicy("admin", vaulttest.Rules{"sys/*": {"update"}})
	c := newCaller(t, s, s.CreateToken(vaulttest.TokenOptions{Policies: []string{"admin"}}).ID)
	c.want(204, "POST", "sys/mounts/x", fields{"type": "transit"})
	c.want(403, "POST", "sys/auth/x", fields{"type": "jwt"}, denied)
	c.want(403, "GET", "sys/mounts", nil, denied)
	s.SetPolicy("admin", vaulttest.Rules{"sys/*": {"update", "sudo"}})
	c.want(204, "POST", "sys/auth/x", fields{"type": "jwt"})
}

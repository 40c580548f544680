// SPDX-License-Identifier: Apache-2.0

package vaultadmin_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// getenv is an environment with only these variables.
func getenv(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func dial(t *testing.T, address string) *vaultadmin.Client {
	t.Helper()
	config, err := vaultadmin.FromEnvironment(getenv("VAULT_ADDR", address, "VAULT_TOKEN", "hvs.admin", "VAULT_NAMESPACE", "team/"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := vaultadmin.Dial(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{config, *c, c} {
		if s := fmt.Sprintf("%v %+v %#v %s %d", v, v, v, v, v); strings.Contains(s, "hvs.admin") {
			t.Errorf("the token is in %s", s)
		}
	}
	return c
}

func TestFromEnvironment(t *testing.T) {
	home := t.TempDir()
	if _, err := vaultadmin.FromEnvironment(getenv("VAULT_TOKEN", "x")); err == nil || !strings.HasPrefix(err.Error(), "VAULT_ADDR is not set") {
		t.Errorf("without an address: %v", err)
	}
	if _, err := vaultadmin.FromEnvironment(getenv("VAULT_ADDR", "http://x", "HOME", home)); err == nil || !strings.HasPrefix(err.Error(), "no Vault token") {
		t.Errorf("without a token: %v", err)
	}
	if err := os.WriteFile(filepath.Join(home, ".vault-token"), []byte("hvs.file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var token, namespace string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, namespace = r.Header.Get("X-Vault-Token"), r.Header.Get("X-Vault-Namespace")
		_, _ = w.Write([]byte(`{"request_id":"x","data":{"a":1}}`))
	}))
	defer s.Close()
	config, err := vaultadmin.FromEnvironment(getenv("VAULT_ADDR", s.URL+"/", "HOME", home, "VAULT_NAMESPACE", "team/"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := vaultadmin.Dial(config)
	if err != nil {
		t.Fatal(err)
	}
	data, err := c.Read(t.Context(), "sys/mounts")
	if err != nil || fmt.Sprint(data["a"]) != "1" || token != "hvs.file" || namespace != "team" {
		t.Errorf("got %v %v, as %q in %q", data, err, token, namespace)
	}
}

// TestErrors checks that errors say what to do and quote nothing from Vault.
func TestErrors(t *testing.T) {
	status, body := 0, ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status == http.StatusTemporaryRedirect {
			w.Header().Set("Location", "http://elsewhere.example/v1/a/b")
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer s.Close()
	c := dial(t, s.URL)
	at := "writing a/b at " + s.URL + ": "
	for _, e := range []struct {
		status int
		body   string
		want   string
		cause  vaultadmin.Cause
	}{
		{403, `{"errors":["permission denied hvs.secret"]}`, `permission denied (403): the token is revoked or expired, or its policies lack "update" on a/b`, ""},
		{400, `{"errors":["check-and-set parameter did not match the current version hvs.secret"]}`,
			"the secret has changed since it was read: check `vault kv metadata get`, and run this again (400)", vaultadmin.Changed},
		{400, `{"errors":["Upgrading from non-versioned to versioned data. hvs.secret"]}`, "the KV engine is not ready yet: run this again (400)", vaultadmin.Upgrading},
		{503, `{"errors":["Vault is sealed hvs.secret"]}`, "vault is sealed or has no active node (503): unseal it", ""},
		{500, `{"errors":["hvs.secret"]}`, "vault answered 500 Internal Server Error: see Vault's log", ""},
		{404, `{"errors":["hvs.secret"]}`, "not found (404)", vaultadmin.Unknown},
		{403, `{"errors":["1 error occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`, "your token is revoked or expired (403)", vaultadmin.Dead},
		{307, ``, "vault redirects to another node, and redirects are not followed, to protect the token: set VAULT_ADDR to an address of the active node", ""},
	} {
		status, body = e.status, e.body
		_, err := c.Write(t.Context(), "a/b", map[string]any{"x": "hvs.secret"})
		if err == nil || err.Error() != at+e.want || vaultadmin.CauseOf(err) != e.cause {
			t.Errorf("%d: got %v (%s)\nwant %s (%s)", e.status, err, vaultadmin.CauseOf(err), at+e.want, e.cause)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), "hvs.secret") {
			t.Errorf("%d: the output contains a secret", e.status)
		}
		if got, want := vaultadmin.Answered(err), e.status >= 400 && e.status < 500; got != want {
			t.Errorf("%d: answered %t, want %t", e.status, got, want)
		}
	}
	status, body = 404, `{"errors":[]}`
	if data, err := c.Read(t.Context(), "a/b"); data != nil || err != nil {
		t.Errorf("nothing there: got %v %v", data, err)
	}
	status, body = 404, `{"request_id":"a","data":null,"warnings":["Invalid path for a versioned K/V secrets engine."]}`
	if data, err := c.Read(t.Context(), "a/b"); data != nil || err != nil {
		t.Errorf("an answer of the KV engine: got %v %v", data, err)
	}
	s.Close()
	if _, err := c.Read(t.Context(), "a/b"); err == nil || !strings.Contains(err.Error(), "connection refused: check that Vault is up") {
		t.Errorf("no server: %v", err)
	}
}

// TestNotVault checks that the pages of other servers never look like Vault's words
// about a token or a path.
func TestNotVault(t *testing.T) {
	status, body := 0, ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer s.Close()
	c := dial(t, s.URL)
	for _, status = range []int{200, 400, 403, 404, 500, 503} {
		for _, body = range []string{"", "default backend - 404", "<html>permission denied, bad token, invalid accessor</html>", `"errors"`, "[]",
			`{"kind":"Status","apiVersion":"v1","status":"Failure","code":404}`} {
			want := fmt.Sprintf("the answer (%d) is not from Vault: check VAULT_ADDR", status)
			_, read := c.Read(t.Context(), "sys/mounts")
			_, written := c.Write(t.Context(), "sys/mounts/x", nil)
			_, created := c.CreateToken(t.Context(), vaultadmin.TokenOptions{})
			_, found := c.Lookup(t.Context(), "hvs.x")
			for _, err := range []error{read, written, created, found} {
				if err == nil || !strings.Contains(err.Error(), want) || vaultadmin.CauseOf(err) != "" || vaultadmin.Denied(err) || vaultadmin.Answered(err) {
					t.Errorf("%d %s: got %v", status, body, err)
				}
			}
		}
	}
}

// TestAddress checks that an address which the daemon refuses is refused, and that no
// error shows its password.
func TestAddress(t *testing.T) {
	for address, want := range map[string]string{
		"https://user:password@vault.example":       "contains a user name or password",
		"https://user:pass word@vault.example:8200": "is not a URL",
		"https://vault.example/path":                "must not have a path",
		"https://vault.example?password=1":          "must not have a query",
		"unix:///run/agent.sock":                    "must begin with https://",
		"vault.example:8200":                        "has no scheme",
	} {
		_, err := vaultadmin.Dial(vaultadmin.Config{Address: address}.WithToken("hvs.admin"))
		if err == nil || !strings.HasPrefix(err.Error(), "VAULT_ADDR: "+want) || strings.Contains(err.Error(), "pass") && !strings.Contains(want, "pass") {
			t.Errorf("%s: got %v, want %s…", address, err, want)
		}
	}
	c, err := vaultadmin.Dial(vaultadmin.Config{Address: " https://vault.example:8200/ "}.WithToken("hvs.admin"))
	if err != nil || c.Address() != "https://vault.example:8200" {
		t.Errorf("got %v %v", c, err)
	}
}

// TestLookup tells a token that is revoked from one that Vault says nothing about.
func TestLookup(t *testing.T) {
	v := vaulttest.Start(t)
	v.SetPolicy("nothing", nil)
	v.SetPolicy("looks", vaulttest.Rules{"auth/token/lookup": {"update"}})
	silent := v.CreateToken(vaulttest.TokenOptions{Policies: []string{"nothing"}, NoDefaultPolicy: true})
	usual := v.CreateToken(vaulttest.TokenOptions{Policies: []string{"trousseau"}, Orphan: true})
	once := v.CreateToken(vaulttest.TokenOptions{NumUses: 1})
	gone := v.CreateToken(vaulttest.TokenOptions{})
	v.Revoke(gone.ID)
	batch := v.CreateToken(vaulttest.TokenOptions{Type: vaulttest.Batch})
	may := v.CreateToken(vaulttest.TokenOptions{Policies: []string{"looks"}}).ID
	mayNot := v.CreateToken(vaulttest.TokenOptions{}).ID
	for _, c := range []struct {
		name, admin string
		token       vaulttest.Token
		cause       vaultadmin.Cause
		denied      bool
	}{
		{name: "usual", admin: may, token: usual},
		{name: "usual, by itself", admin: mayNot, token: usual},
		{name: "silent", admin: may, token: silent},
		{name: "silent, by itself", admin: mayNot, token: silent, denied: true},
		{name: "one use", admin: may, token: once},
		{name: "revoked", admin: may, token: gone, cause: vaultadmin.Unknown, denied: true},
		{name: "revoked, by itself", admin: mayNot, token: gone, cause: vaultadmin.Unknown, denied: true},
		{name: "the administrator's is revoked", admin: gone.ID, token: usual, cause: vaultadmin.Dead, denied: true},
		{name: "batch", admin: may, token: batch},
	} {
		client, err := vaultadmin.Dial(vaultadmin.Config{Address: v.URL()}.WithToken(c.admin))
		if err != nil {
			t.Fatal(err)
		}
		i, err := client.Lookup(t.Context(), c.token.ID)
		if vaultadmin.CauseOf(err) != c.cause || vaultadmin.Denied(err) != c.denied || err == nil && i.Accessor != c.token.Accessor {
			t.Errorf("%s: got %+v %v (%s), want accessor %q", c.name, i, err, vaultadmin.CauseOf(err), c.token.Accessor)
		}
		if c.name == "usual" && (!slices.Equal(i.Policies, []string{"default", "trousseau"}) || !i.Orphan) {
			t.Errorf("got %+v", i)
		}
	}
	if !v.TokenAlive(once.ID) {
		t.Error("the look-up has spent the token's use")
	}
}

func TestTimeIsUp(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer s.Close()
	c := dial(t, s.URL)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Read(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestCACert(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) }))
	defer s.Close()
	if _, err := dial(t, s.URL).Read(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "set VAULT_CACERT to the file") {
		t.Errorf("got %v", err)
	}
	none := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(none, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := vaultadmin.Dial(vaultadmin.Config{Address: s.URL, CACertFile: none}); err == nil || err.Error() != "VAULT_CACERT: "+none+" has no PEM certificate" {
		t.Errorf("got %v", err)
	}
}

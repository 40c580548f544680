// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

func TestQuery(t *testing.T) {
	s := vaulttest.Start(t)
	s.Mount("team", "transit").CreateKey("kek")
	c := dial(t, s, func(cfg *vault.Config) { cfg.Namespace, cfg.Credential = "team", vault.Given(s.RootToken()) })

	// A GET in the root namespace, despite the client's namespace.
	var health struct {
		Sealed  bool   `json:"sealed"`
		Version string `json:"version"`
	}
	if err := c.Query(bounded(t), vault.Query{What: "asking", Path: "sys/health"}, &health); err != nil || health.Version != vaulttest.Version {
		t.Errorf("health: %+v, %v", health, err)
	}
	s.Seal()
	if err := c.Query(bounded(t), vault.Query{What: "asking", Path: "sys/health"}, &health); err != nil || !health.Sealed {
		t.Errorf("sealed: %+v, %v", health, err)
	}
	s.Unseal()

	// A POST, in a namespace.
	var granted map[string][]string
	query := vault.Query{What: "asking", Path: "sys/capabilities-self", Namespace: "team", Body: []byte(`{"paths":["a","b"]}`)}
	if err := c.Query(bounded(t), query, &granted); err != nil || fmt.Sprint(granted) != "map[a:[root] b:[root]]" {
		t.Errorf("capabilities: %v, %v", granted, err)
	}

	// Numbers must not be rounded through float64.
	var key struct {
		Latest int            `json:"latest_version"`
		Keys   map[string]int `json:"keys"`
	}
	if err := c.Query(bounded(t), vault.Query{What: "reading", Path: "transit/keys/kek", Namespace: "team"}, &key); err != nil || key.Latest != 1 {
		t.Errorf("key: %+v, %v", key, err)
	}
	created := int(s.Mount("team", "transit").Key("kek").Created(1).Unix())
	if want := map[string]int{"1": created}; !maps.Equal(key.Keys, want) {
		t.Errorf("keys: %v, want %v", key.Keys, want)
	}
}

func TestQueryFails(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	c := dial(t, s, func(cfg *vault.Config) { cfg.Credential = vault.Given(s.KMSToken("other")) })
	var key struct {
		Latest int `json:"latest_version"`
	}
	read := vault.Query{What: "reading the key", Path: "transit/keys/kek"}
	tests := map[string]struct {
		query  vault.Query
		answer string
		class  fault.Class
		text   string
	}{
		"a read that is denied":  {read, "", fault.Denied, `lacks "read" on transit/keys/kek`},
		"a write that is denied": {vault.Query{What: "reading the key", Path: "transit/encrypt/kek", Body: []byte("{}")}, "", fault.Denied, `lacks "update" on transit/encrypt/kek`},
		"no data":                {read, `null`, fault.Unavailable, ""},
		"another type":           {read, `{"data":{"latest_version":"hvs.other"}}`, fault.Unavailable, "a field has the wrong type"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.answer != "" {
				s.Inject(vaulttest.Fault{Status: http.StatusOK, Body: test.answer, Times: 1})
			}
			err := c.Query(bounded(t), test.query, &key)
			if fault.ClassOf(err) != test.class || !strings.HasPrefix(err.Error(), "reading the key at "+s.URL()+": ") || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got class %q, %v, want %q with %q", fault.ClassOf(err), err, test.class, test.text)
			}
			if strings.Contains(err.Error(), "hvs.") {
				t.Error("the error quotes the answer")
			}
		})
	}
}

// A diagnosis connects as the client does: with the same certificates and name.
func TestHandshake(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true, ClientCert: true})
	cfg := vault.Config{CACert: s.CAPEM(), ServerName: "localhost", ClientCert: s.ClientCertPEM(), ClientKey: s.ClientKeyPEM()}
	conn, name, err := cfg.Handshake(bounded(t), s.Addr())
	if err != nil || name != "localhost" || len(conn.ConnectionState().VerifiedChains) == 0 {
		t.Fatalf("%v, name %q, want a verified chain for localhost", err, name)
	}
	fmt.Fprintf(conn, "GET /v1/sys/health HTTP/1.0\r\n\r\n")
	if answer, err := io.ReadAll(conn); err != nil || !strings.Contains(string(answer), " 200 OK") {
		t.Errorf("%s, %v, want 200", answer, err)
	}
	conn.Close()
	if _, name, err := (vault.Config{}).Handshake(bounded(t), s.Addr()); err == nil || name != "127.0.0.1" {
		t.Errorf("%v, name %q, want an unknown authority for 127.0.0.1", err, name)
	}
}

// An anonymous call has no token, so it does not use one up. Vault's refusal of it is
// not that of a policy.
func TestAnonymousQuery(t *testing.T) {
	s := vaulttest.Start(t)
	c := dial(t, s, func(cfg *vault.Config) { cfg.Credential = vault.Given(s.RootToken()) })
	s.Inject(vaulttest.Fault{Handle: func(_ string, _ http.ResponseWriter, r *http.Request) bool {
		if token := r.Header.Get("X-Vault-Token"); token != "" {
			t.Error("it has the token")
		}
		return false
	}})
	query := vault.Query{What: "asking", Path: "sys/wrapping/lookup", Body: []byte(`{"token":"x"}`), Anonymous: true, Refused: "not one"}
	if err := c.Query(bounded(t), query, &struct{}{}); fault.ClassOf(err) != fault.Denied || !strings.HasSuffix(err.Error(), ": not one (400)") {
		t.Errorf("%v, want class %s and our words", err, fault.Denied)
	}
}

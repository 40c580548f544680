// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"fmt"
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

// TestConfigTLS checks that a diagnosis uses the client's TLS configuration.
func TestConfigTLS(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true, ClientCert: true})
	cfg := vault.Config{CACert: s.CAPEM(), ServerName: "localhost", ClientCert: s.ClientCertPEM(), ClientKey: s.ClientKeyPEM()}
	tc, err := cfg.TLS()
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tc}}
	resp, err := client.Get(s.URL() + "/v1/sys/health")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cfg.CACert = []byte("none")
	if _, err := cfg.TLS(); err == nil {
		t.Error("a CA file without a certificate was accepted")
	}
}

// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"net/http"
	"testing"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Answers that only resemble a missing key must have another class.
func TestReadKeyRefused(t *testing.T) {
	const notVault = "the answer is not Vault's: 404 Not Found; check for a proxy, a firewall or another server at this address"
	const noRoute = "nothing is mounted at this path (404); check the address, namespace and mount"
	respond := func(status int, body string) func(*vaulttest.Server) {
		return func(s *vaulttest.Server) { s.Intercept(answer(status, body)) }
	}
	tests := map[string]struct {
		arrange func(*vaulttest.Server)
		change  func(*vaulttest.Server, *vault.Config)
		class   fault.Class
		text    string
	}{
		"missing key": {
			func(s *vaulttest.Server) { s.Transit().Key("kek").Delete() }, nil,
			fault.KeyLost, "the key does not exist (404)",
		},
		"missing mount": {
			func(s *vaulttest.Server) { s.Unmount("", "transit") },
			func(s *vaulttest.Server, cfg *vault.Config) { cfg.Credential = vault.Given(s.RootToken()) },
			fault.Unavailable, noRoute,
		},
		"missing namespace": {
			nil, func(s *vaulttest.Server, cfg *vault.Config) {
				s.Mount("team", "transit") // makes it a Vault Enterprise
				cfg.Credential, cfg.Namespace = vault.Given(s.RootToken()), "gone"
			},
			fault.Unavailable, noRoute,
		},
		"policy": {
			nil, func(s *vaulttest.Server, cfg *vault.Config) { cfg.Credential = vault.Given(s.KMSToken("other")) },
			fault.Denied, `permission denied (403): the token is expired or revoked, or its policy lacks "read" on transit/keys/kek`,
		},
		"dead token": {
			nil, func(_ *vaulttest.Server, cfg *vault.Config) { cfg.Credential = vault.Given("hvs.dead-token") },
			fault.Denied, `permission denied (403): the token is expired or revoked, or its policy lacks "read" on transit/keys/kek`,
		},
		"404 page":           {respond(404, "<html>nginx</html>"), nil, fault.Unavailable, notVault},
		"404 empty":          {respond(404, ""), nil, fault.Unavailable, notVault},
		"404 text":           {respond(404, "404 page not found\n"), nil, fault.Unavailable, notVault},
		"404 other JSON":     {respond(404, `{"errors":["no such service"]}`), nil, fault.Unavailable, notVault},
		"404 empty object":   {respond(404, `{}`), nil, fault.Unavailable, notVault},
		"404 null errors":    {respond(404, `{"errors":null}`), nil, fault.Unavailable, notVault},
		"404 quoting errors": {respond(404, `<html>{"errors":[]}</html>`), nil, fault.Unavailable, notVault},
		"405":                {respond(405, `{"errors":[]}`), nil, fault.Unavailable, "the answer is not Vault's: 405 Method Not Allowed; check for a proxy, a firewall or another server at this address"},
		"no latest_version":  {respond(200, `{"data":{"type":"aes256-gcm96","keys":{"1":1}}}`), nil, fault.Unavailable, "unexpected response from Vault: no latest_version"},
		"version word":       {respond(200, `{"data":{"latest_version":1,"keys":{"one":1}}}`), nil, fault.Unavailable, "unexpected response from Vault: a key version is not a number"},
		"asymmetric": {
			respond(200, `{"data":{"type":"rsa-2048","latest_version":1,"supports_encryption":true,"keys":{"1":{"public_key":"x"}}}}`), nil,
			fault.KeyUnusable, "key type rsa-2048 is not supported; create a key of type aes256-gcm96, not derived",
		},
		"signing only": {
			respond(200, `{"data":{"type":"hmac","latest_version":1,"supports_encryption":false,"keys":{"1":1}}}`), nil,
			fault.KeyUnusable, "key type hmac is not supported; create a key of type aes256-gcm96, not derived",
		},
		"derived": {
			respond(200, `{"data":{"type":"aes256-gcm96","derived":true,"latest_version":1,"supports_encryption":true,"keys":{"1":1}}}`), nil,
			fault.KeyUnusable, "key type aes256-gcm96, derived, is not supported; create a key of type aes256-gcm96, not derived",
		},
		"unprintable type": {
			respond(200, `{"data":{"type":"<script>","latest_version":1,"keys":{}}}`), nil,
			fault.KeyUnusable, "key type unknown is not supported; create a key of type aes256-gcm96, not derived",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t)
			s.CreateKey("kek")
			c := dial(t, s, func(cfg *vault.Config) {
				if test.change != nil {
					test.change(s, cfg)
				}
			})
			if test.arrange != nil {
				test.arrange(s)
			}
			_, err := c.ReadKey(bounded(t), "kek")
			wantError(t, c, err, test.class, "reading key "+c.Engine()+"/kek at ADDRESS: "+test.text)
			if got := s.Count(vaulttest.OpReadKey); got != 1 {
				t.Errorf("got %d requests, want 1", got)
			}
		})
	}
}

// A page that a proxy serves on every path must not be mistaken for a missing key.
func TestForeign404IsNeverKeyLost(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	c := dial(t, s, nil)
	s.Intercept(answer(http.StatusNotFound, "<html>no handler for route</html>"))
	_, readErr := c.ReadKey(bounded(t), "kek")
	_, decryptErr := c.Decrypt(bounded(t), "kek", []byte("vault:v1:AAAA"), nil)
	for _, err := range []error{readErr, decryptErr, encrypt(bounded(t), c)} {
		if got := fault.ClassOf(err); got != fault.Unavailable {
			t.Errorf("got class %q for %v, want %q", got, err, fault.Unavailable)
		}
	}
}

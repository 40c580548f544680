// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/config"
)

func TestReferences(t *testing.T) {
	tests := []struct {
		name, data string
		want       []string
	}{
		{"none", asVaultAgentRendersIt, nil},
		{"all of the vault section, sorted",
			"vault:\n  vaultCACert: /d\n  clientCert: /b\n  clientKey: /c\n  tokenFile: /a\n  secretIDFile: /e\n",
			[]string{"/a", "/b", "/c", "/d", "/e"}},
		{"Kubernetes", "vault:\n  kubernetes:\n    role: a\n", []string{serviceAccount}},
		{"Kubernetes with another token", "vault:\n  Kubernetes: {TokenFile: ' /a'}\n", []string{"/a"}},
		{"Kubernetes with no role either", "vault: {kubernetes: {}}\n", []string{serviceAccount}},
		{"Kubernetes beside mistakes", "vault:\n  token: hvs.abc\n  kubernetes:\n    colour: red\n    role: [a]\n",
			[]string{serviceAccount}},
		{"Kubernetes, token twice", "vault:\n  kubernetes:\n    tokenFile: /b\n    tokenfile: /a\n", []string{"/a", "/b"}},
		{"Kubernetes twice", "vault:\n  kubernetes: {role: a}\n  KUBERNETES: {role: a, tokenFile: /a}\n",
			[]string{"/a", serviceAccount}},
		{"Kubernetes, token under a name that is not plain",
			"vault:\n  kubernetes:\n    &a tokenFile: /a\n", []string{"/a", serviceAccount}},
		{"Kubernetes, token misspelled with a Kelvin sign",
			"vault:\n  kubernetes:\n    to\u212aenFile: /a\n", []string{"/a", serviceAccount}},
		{"Kubernetes, token refused", "vault:\n  kubernetes:\n    tokenFile: token\n", nil},
		{"Kubernetes, token null", "vault:\n  kubernetes:\n    tokenFile:\n", nil},
		{"Kubernetes with nothing below", "vault:\n  kubernetes:\n", nil},
		{"Kubernetes is text", "vault:\n  kubernetes: trousseau\n", nil},
		{"Kubernetes is a list", "vault:\n  kubernetes: [tokenFile: /a]\n", nil},
		{"JWT", "vault:\n  jwt:\n    role: a\n    tokenFile: /a\n", []string{"/a"}},
		{"JWT without its file", "vault:\n  jwt: {role: a}\n", nil},
		{"one file for two fields", "vault:\n  clientCert: /pair.pem\n  clientKey: /pair.pem\n", []string{"/pair.pem"}},
		{"as rendered", "\r\n--- \r\nVAULT: \r\n tokenfile: \"/run/secrets/vault token \" \r\n",
			[]string{"/run/secrets/vault token"}},
		{"spelled as written", "vault:\n  tokenFile: /etc//trousseau/../token\n", []string{"/etc//trousseau/../token"}},
		{"beside mistakes", "colour: red\nvault:\n  colour: red\n  address: ftp://x\n  vaultCACert: /ca.pem\n  tokenFile:\n",
			[]string{"/ca.pem"}},
		{"set twice", "vault:\n  tokenFile: /b\n  TokenFile: /a\nVault:\n  tokenFile: /c\n", []string{"/a", "/b", "/c"}},
		{"with a second document", "vault:\n  tokenFile: /a\n---\nvault:\n  tokenFile: /b\n", []string{"/a"}},

		{"relative name", "vault:\n  tokenFile: token\n", nil},
		{"token, not a file name", "vault:\n  token: /hvs.abc\n", nil},
		{"wrong level", "tokenFile: /a\njwt: {tokenFile: /a}\nkubernetes: {}\n", nil},
		{"wrong level within", "vault:\n  jwt: {secretIDFile: /a, vaultCACert: /a}\n", nil},
		{"wrong kinds", "vault:\n  tokenFile: [/a]\n  vaultCACert: {/b: /c}\n", nil},
		{"alias", "provider: &a /a\nvault:\n  tokenFile: *a\n", nil},
		{"vault is a list", "vault:\n- tokenFile: /a\n", nil},
		{"list", "- vault\n", nil},
		{"empty", "", nil},
		{"not YAML", "vault:\n  tokenFile: /a\n 'x\n", nil},
		{"not text", "vault:\n  tokenFile: /a\n  token: \x00\n", nil},
		{"too large", "vault:\n  tokenFile: /a\n#" + strings.Repeat(" ", config.MaxSize), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := config.References([]byte(tt.data))
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.want == nil && got != nil {
				t.Error("got an empty list, want nil")
			}
		})
	}
}

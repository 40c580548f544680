// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/config"
)

func TestInTheClear(t *testing.T) {
	tests := []struct {
		addresses []string // as in config.yaml
		want      string
	}{
		{[]string{"https://vault.example:8200"}, ""},
		{[]string{"https://vault.example:8200", "https://vault-2.example"}, ""},
		{[]string{"http://vault.example:8200"}, "http://vault.example:8200"},
		{[]string{"HTTP://Vault.example/"}, "http://Vault.example"},
		{[]string{"http://10.0.0.1"}, "http://10.0.0.1"},
		{[]string{"http://[2001:db8::1]:8200"}, "http://[2001:db8::1]:8200"},
		{[]string{"http://0.0.0.0:8200"}, "http://0.0.0.0:8200"},
		{[]string{"http://127.0.0.1.example"}, "http://127.0.0.1.example"},
		{[]string{"http://notlocalhost"}, "http://notlocalhost"},
		{[]string{"http://localhost.example"}, "http://localhost.example"},

		{[]string{"http://localhost:8200"}, ""},
		{[]string{"http://LOCALHOST."}, ""},
		{[]string{"http://vault.localhost"}, ""},
		{[]string{"http://127.0.0.1:8200"}, ""},
		{[]string{"http://127.1.2.3"}, ""},
		{[]string{"http://[::1]:8200"}, ""},
		{[]string{"http://[::ffff:127.0.0.1]:8200"}, ""},

		{[]string{"http://127.0.0.1:8200", "http://vault-2.example", "http://vault-3.example"}, "http://vault-2.example"},
		{[]string{"http://127.0.0.1:8200", "http://localhost:8201"}, ""},
	}
	for _, tt := range tests {
		data := strings.Replace(asVaultAgentRendersIt, "http://vault.example:8200", tt.addresses[0], 1)
		if further := tt.addresses[1:]; len(further) > 0 {
			data += "  addresses: ['" + strings.Join(further, "', '") + "']\n"
		}
		c, err := config.Parse([]byte(data), nil)
		if err != nil {
			t.Errorf("%q refused: %v", tt.addresses, err)
			continue
		}
		if got := c.Vault.InTheClear(); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.addresses, got, tt.want)
		}
	}
}

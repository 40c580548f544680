// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"fmt"
	"slices"
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// TestLostKeyShows checks the assumption of TrousseauKeyLost: Vault's answers to
// probes when the key is lost, in each of the ways in docs/operations.md, differ
// from those in an outage.
func TestLostKeyShows(t *testing.T) {
	var codes []string
	for _, r := range readRules(t) {
		if r.Alert != "TrousseauKeyLost" {
			continue
		}
		for _, s := range (expression{r.Alert, r.Expr}).selectors() {
			for _, m := range s.matchers {
				if m.label == "code" {
					codes = m.values
				}
			}
		}
	}
	for _, tt := range []struct {
		name string
		lose func(*vaulttest.Server, *vaulttest.Key)
		code string
		lost bool
	}{
		{"deleted", func(_ *vaulttest.Server, k *vaulttest.Key) { k.Delete() }, "key_lost", true},
		{"recreated", func(v *vaulttest.Server, k *vaulttest.Key) { k.Delete(); v.CreateKey(keyName).Rotate() }, "invalid", true},
		{"recreated with another type", func(v *vaulttest.Server, k *vaulttest.Key) {
			k.Delete()
			v.CreateKeyWith(keyName, vaulttest.KeyOptions{Type: "rsa-2048"}).Rotate()
		}, "key_unusable", true},
		{"min_decryption_version raised", func(_ *vaulttest.Server, k *vaulttest.Key) { k.SetMinDecryptionVersion(3) }, "version_too_old", true},
		{"restored from an old backup", func(_ *vaulttest.Server, k *vaulttest.Key) { k.ForgetNewest() }, "version_too_new", true},
		{"sealed", func(v *vaulttest.Server, _ *vaulttest.Key) { v.Seal() }, "sealed", false},
		{"token revoked", func(v *vaulttest.Server, _ *vaulttest.Key) { v.Revoke(v.Tokens()[0].ID) }, "denied", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := start(t)
			vault := vaulttest.Start(t)
			key := vault.CreateKey(keyName)
			key.Rotate()
			d.configure(vault, fmt.Sprintf("  token: %s\n", vault.KMSToken(keyName)))
			d.await("trousseau_generation 1")
			tt.lose(vault, key)
			d.await("trousseau_degraded 1")
			d.await(fmt.Sprintf(`trousseau_vault_requests_total{code=%q,operation="decrypt"} `, tt.code))
			if got := slices.Contains(codes, tt.code); got != tt.lost {
				t.Errorf("TrousseauKeyLost treats %s as a lost key: %t, want %t", tt.code, got, tt.lost)
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"fmt"
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// TestLostKeyShows checks the metric of TrousseauKeyLost: 1 when the key is lost, in
// the ways in docs/operations.md that show at once, and 0 in an outage.
func TestLostKeyShows(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(*vaulttest.Server, *vaulttest.Key)
		want int
	}{
		{"deleted", func(_ *vaulttest.Server, k *vaulttest.Key) { k.Delete() }, 1},
		{"recreated", func(v *vaulttest.Server, k *vaulttest.Key) { k.Delete(); v.CreateKey(keyName).Rotate() }, 1},
		{"min_decryption_version raised", func(_ *vaulttest.Server, k *vaulttest.Key) { k.SetMinDecryptionVersion(3) }, 1},
		{"sealed", func(v *vaulttest.Server, _ *vaulttest.Key) { v.Seal() }, 0},
		{"token revoked", func(v *vaulttest.Server, _ *vaulttest.Key) { v.Revoke(v.Tokens()[0].ID) }, 0},
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
			d.await(fmt.Sprintf("trousseau_key_lost %d", tt.want))
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/vaultsuite"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// Runs the suite that checks the fake Vault against a real Vault.
func TestVaultAnswersAsTheFakeDoes(t *testing.T) {
	bed := testbed.New(t, &report, "the fake Vault's suite on real Vault")
	bed.NeedsVault("the suite has the exact answers of Vault, to which the fake one is held")
	vault := bed.StartVault(testbed.VaultOptions{})
	ca, err := os.ReadFile(bed.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	vaultsuite.Run(t, vaultsuite.Server{
		URL: "https://" + vault.Nodes[0].Addr, CA: ca, RootToken: vault.CLI("print", "token"), Seal: vault.Nodes[0].Seal,
		Unseal: func() {
			vault.Nodes[0].Unseal()
			vault.AwaitActive()
		},
	})
}

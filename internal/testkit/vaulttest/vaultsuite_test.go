// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaultsuite"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// TestLikeVault compares the fake's answers with HashiCorp Vault's. `make e2e` runs the same suite against Vault
// itself.
func TestLikeVault(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true})
	token := vaulttest.TokenOptions{Policies: []string{"kms"}, TTL: time.Minute}
	vaultsuite.Run(t, vaultsuite.Server{
		URL: s.URL(), CA: s.CAPEM(), RootToken: s.RootToken(), Seal: s.Seal, Unseal: s.Unseal,
		Prepare: map[string]func(map[string]string){
			"approle": func(vars map[string]string) {
				m := s.EnableAppRole("", "approle")
				limited := token
				limited.MaxTTL = 90 * time.Second
				vars["role_id"] = m.SetRole("kms", limited)
				vars["secret_id"] = m.NewSecretID("kms")
			},
			"kubernetes": func(vars map[string]string) {
				m := s.EnableKubernetes("", "kubernetes")
				for _, role := range []string{"kms", "narrow", "elsewhere"} {
					m.Accept(role, vars["jwt"])
				}
			},
			"jwt": func(vars map[string]string) {
				m := s.EnableJWT("", "jwt")
				m.SetRole("kms", token)
				m.SetRole("other", token)
				m.Accept("kms", vars["jwt"])
			},
			"cert": func(vars map[string]string) {
				m := s.EnableCert("", "cert")
				ca := []byte(strings.ReplaceAll(vars["client_ca"], `\n`, "\n"))
				m.SetRole("kms", vaulttest.CertOptions{Token: token, Certificate: ca})
				m.SetRole("other", vaulttest.CertOptions{})
			},
		},
	})
}

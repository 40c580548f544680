// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

func TestMetrics(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	registry := prometheus.NewPedanticRegistry()
	metrics := vault.NewMetrics(registry)
	token := s.KMSToken("kek")
	// Two clients, as before and after a reload.
	first := dial(t, s, func(cfg *vault.Config) { cfg.Metrics, cfg.Credential = metrics, vault.Given(token) })
	second := dial(t, s, func(cfg *vault.Config) { cfg.Metrics, cfg.Credential = metrics, vault.Given(token) })
	ctx := bounded(t)

	_ = encrypt(ctx, first)
	_ = encrypt(ctx, second)
	_, _ = first.Decrypt(ctx, "kek", []byte("vault:v7:AAAA"), nil)
	_, _ = first.ReadKey(ctx, "kek")
	_, _ = first.LookupSelf(ctx)
	remove := s.Intercept(answer(http.StatusOK, `{"data":{"ciphertext":"vault:v2:AAAA"}}`))
	_, _, _ = first.Encrypt(ctx, "kek", 1, []byte("seed"), nil)
	remove()
	s.Seal()
	_ = encrypt(ctx, first)
	s.Unseal()
	s.Transit().Key("kek").Delete()
	_, _ = first.ReadKey(ctx, "kek")
	s.Revoke(token)
	_, _ = first.LookupSelf(ctx)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_ = encrypt(gone, first)

	want := `
# HELP trousseau_vault_requests_total Calls to Vault, by operation and code (ok or the error class).
# TYPE trousseau_vault_requests_total counter
trousseau_vault_requests_total{code="canceled",operation="encrypt"} 1
trousseau_vault_requests_total{code="ok",operation="encrypt"} 2
trousseau_vault_requests_total{code="sealed",operation="encrypt"} 1
trousseau_vault_requests_total{code="unavailable",operation="encrypt"} 1
trousseau_vault_requests_total{code="version_too_new",operation="decrypt"} 1
trousseau_vault_requests_total{code="ok",operation="read_key"} 1
trousseau_vault_requests_total{code="key_lost",operation="read_key"} 1
trousseau_vault_requests_total{code="ok",operation="lookup_self"} 1
trousseau_vault_requests_total{code="denied",operation="lookup_self"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "trousseau_vault_requests_total"); err != nil {
		t.Error(err)
	}
	if got := observations(t, registry); got["encrypt"] != 5 || got["decrypt"] != 1 || got["read_key"] != 2 || got["lookup_self"] != 2 {
		t.Errorf("durations observed: got %v", got)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: got %v, %v", problems, err)
	}
}

// observations counts the durations by operation.
func observations(t *testing.T, registry prometheus.Gatherer) map[string]uint64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if h := m.GetHistogram(); h != nil {
				counts[m.GetLabel()[0].GetValue()] = h.GetSampleCount()
			}
		}
	}
	return counts
}

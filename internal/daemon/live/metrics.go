// SPDX-License-Identifier: Apache-2.0

package live

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trousseau-io/trousseau/internal/keyid"
)

// metrics exposes the view. Everything that can be read off it is, at the
// moment of the scrape: there is no gauge to keep in step and no label set of a
// former key to forget.
type metrics struct {
	kek     *KEK
	reloads *prometheus.CounterVec
}

var (
	descGeneration = prometheus.NewDesc("trousseau_generation",
		"Number of the generation in use, counted from 1 at every start; 0 before the first.", nil, nil)
	descReloadOK = prometheus.NewDesc("trousseau_config_last_reload_successful",
		"Whether the configuration as it is now is the one in use.", nil, nil)
	descReloadTime = prometheus.NewDesc("trousseau_config_last_reload_success_timestamp_seconds",
		"When configuration was last adopted.", nil, nil)
	descReloadError = prometheus.NewDesc("trousseau_config_last_reload_error_info",
		"The class of the last failure to adopt the configuration; absent after a success.", []string{"class"}, nil)
	descKey = prometheus.NewDesc("trousseau_key_info",
		"The key version that encrypts; key_id_hash is the label that kube-apiserver's metrics carry.", []string{"key_id_hash", "key", "version"}, nil)
	descKeyCreated = prometheus.NewDesc("trousseau_key_version_created_timestamp_seconds",
		"When Vault made the key version that encrypts; absent if policy denies reading the key.", nil, nil)
	descTokenExpiry = prometheus.NewDesc("trousseau_vault_token_expiry_timestamp_seconds",
		"When the Vault token in use dies; absent if it never does or may not be looked up.", nil, nil)
	descToken = prometheus.NewDesc("trousseau_vault_token_info",
		"The Vault token in use, by the SHA-256 of its accessor.", []string{"accessor_hash"}, nil)
	descTokenKept = prometheus.NewDesc("trousseau_vault_token_renewable",
		"Whether Trousseau keeps the Vault token alive, by renewing it or by logging in anew; absent if the token never dies or may not be looked up.", nil, nil)
	descProof = prometheus.NewDesc("trousseau_last_proof_timestamp_seconds",
		"When an encrypt and decrypt round trip last succeeded.", nil, nil)
	descDegraded = prometheus.NewDesc("trousseau_degraded",
		"Whether the KEK cannot be used in full right now.", nil, nil)
)

func newMetrics(reg prometheus.Registerer, k *KEK) *metrics {
	m := &metrics{
		kek: k,
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trousseau_config_reloads_total",
			Help: "Attempts to adopt configuration, by result: adopted or the class of the failure.",
		}, []string{"result"}),
	}
	reg.MustRegister(m, m.reloads)
	return m
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descGeneration, descReloadOK, descReloadTime, descReloadError, descKey, descKeyCreated,
		descTokenExpiry, descTokenKept, descToken, descProof, descDegraded,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	v := m.kek.view.Load()
	gauge(descReloadOK, truth(v.gen != nil && v.refused == ""))
	if !v.reloaded.IsZero() {
		gauge(descReloadTime, seconds(v.reloaded))
	}
	if v.refused != "" {
		gauge(descReloadError, 1, v.refused)
	}
	gauge(descDegraded, truth(v.trouble != nil))
	if v.gen == nil {
		gauge(descGeneration, 0)
		return
	}
	gauge(descGeneration, float64(v.gen.Number))
	gauge(descKey, 1, keyid.Hash(v.gen.KeyID), v.gen.ID.Key, strconv.Itoa(v.gen.ID.Version))
	if v.gen.ID.Created != 0 {
		gauge(descKeyCreated, float64(v.gen.ID.Created))
	}
	gauge(descProof, seconds(v.proven))
	if !v.token.Expires.IsZero() {
		gauge(descTokenExpiry, seconds(v.token.Expires))
		gauge(descTokenKept, truth(v.renewable() || v.gen.client.Mints() || v.gen.client.Proxied()))
	}
	if v.token.Accessor != "" {
		sum := sha256.Sum256([]byte(v.token.Accessor))
		gauge(descToken, 1, hex.EncodeToString(sum[:]))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

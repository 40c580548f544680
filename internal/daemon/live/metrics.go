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

// metrics exposes the view at the moment of the scrape, so that there is no gauge
// to keep in step and no label of a former key to forget.
type metrics struct {
	kek     *KEK
	reloads *prometheus.CounterVec
	retries *prometheus.CounterVec
}

var (
	descGeneration = prometheus.NewDesc("trousseau_generation",
		"Number of the generation in use, counted from 1 after each start; 0 before the first.", nil, nil)
	descReloadOK = prometheus.NewDesc("trousseau_config_last_reload_successful",
		"Whether the configuration on disk is the one in use.", nil, nil)
	descReloadTime = prometheus.NewDesc("trousseau_config_last_reload_success_timestamp_seconds",
		"Time when configuration was last adopted.", nil, nil)
	descReloadError = prometheus.NewDesc("trousseau_config_last_reload_error_info",
		"Class of the failure that keeps the configuration from being used; absent if it is in use.", []string{"class"}, nil)
	descKey = prometheus.NewDesc("trousseau_key_info",
		"Key version that encrypts; key_id_hash is the label of kube-apiserver's own metrics.", []string{"key_id_hash", "key", "version"}, nil)
	descKeyCreated = prometheus.NewDesc("trousseau_key_version_created_timestamp_seconds",
		"Creation time of the key version that encrypts; absent if policy denies reading the key.", nil, nil)
	descTokenExpiry = prometheus.NewDesc("trousseau_vault_token_expiry_timestamp_seconds",
		"Expiry time of the current Vault token; absent if it never expires or lookup is denied.", nil, nil)
	descToken = prometheus.NewDesc("trousseau_vault_token_info",
		"SHA-256 of the accessor of the current Vault token.", []string{"accessor_hash"}, nil)
	descTokenKept = prometheus.NewDesc("trousseau_vault_token_kept_alive",
		"Whether Trousseau or an API proxy keeps the Vault token valid; absent if it never expires or lookup is denied.", nil, nil)
	descProof = prometheus.NewDesc("trousseau_last_proof_timestamp_seconds",
		"Time of the last successful encrypt and decrypt round trip.", nil, nil)
	descDegraded = prometheus.NewDesc("trousseau_degraded",
		"Whether the KEK cannot be fully used right now.", nil, nil)
	descStatus = prometheus.NewDesc("trousseau_status_ok",
		"Whether Status tells kube-apiserver that there is a key to use.", nil, nil)
	descLost = prometheus.NewDesc("trousseau_key_lost",
		"Whether Vault can no longer decrypt what the key version in use encrypted.", nil, nil)
	descNode = prometheus.NewDesc("trousseau_vault_node_usable",
		"Whether the Vault node at an address holds the key and accepts the token.", []string{"address"}, nil)
	descInFlight = prometheus.NewDesc("trousseau_vault_requests_in_flight",
		"Calls to Vault for requests that are under way, at most --max-vault-requests.", nil, nil)
	descWaiting = prometheus.NewDesc("trousseau_vault_requests_waiting",
		"Requests that wait because --max-vault-requests has been reached.", nil, nil)
	descUnbatched = prometheus.NewDesc("trousseau_vault_batches_refused",
		"Whether the Vault node at an address, or something before it, takes no batches.", []string{"address"}, nil)
)

func newMetrics(reg prometheus.Registerer, k *KEK) *metrics {
	m := &metrics{
		kek: k,
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trousseau_config_reloads_total",
			Help: "Attempts to adopt configuration, by result: adopted or the class of the failure.",
		}, []string{"result"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trousseau_vault_retries_total",
			Help: "Repeated attempts of requests, by reason: the class of the failure before.",
		}, []string{"reason"}),
	}
	reg.MustRegister(m, m.reloads, m.retries)
	return m
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descGeneration, descReloadOK, descReloadTime, descReloadError, descKey, descKeyCreated,
		descTokenExpiry, descTokenKept, descToken, descProof, descDegraded, descStatus, descLost, descNode, descInFlight, descWaiting, descUnbatched,
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
	gauge(descReloadOK, truth(v.gen != nil && v.reload.refused == ""))
	if !v.reload.adopted.IsZero() {
		gauge(descReloadTime, seconds(v.reload.adopted))
	}
	if v.reload.refused != "" {
		gauge(descReloadError, 1, v.reload.refused)
	}
	gauge(descDegraded, truth(m.kek.degraded(v) != nil))
	state, _ := m.kek.state(v)
	gauge(descStatus, truth(state == stateOK || state == stateDegraded))
	gauge(descLost, truth(state == stateLost))
	underWay, waiting := m.kek.queue.Load()
	gauge(descInFlight, float64(underWay))
	gauge(descWaiting, float64(waiting))
	if v.gen == nil {
		gauge(descGeneration, 0)
		return
	}
	gauge(descGeneration, float64(v.gen.Number))
	gauge(descKey, 1, keyid.Hash(v.gen.KeyID), v.gen.ID.Key, strconv.Itoa(v.gen.ID.Version))
	if v.gen.ID.Created != 0 {
		gauge(descKeyCreated, float64(v.gen.ID.Created))
	}
	gauge(descProof, seconds(v.health.proven))
	for _, n := range v.gen.cluster.nodes {
		gauge(descNode, truth(n.usable()), n.Address())
		gauge(descUnbatched, truth(n.unbatched.Load()), n.Address())
	}
	if !v.token.Expires.IsZero() {
		gauge(descTokenExpiry, seconds(v.token.Expires))
		gauge(descTokenKept, truth(v.token.renewable() || v.gen.cluster.nodes[0].Mints() || v.gen.cluster.nodes[0].Proxied()))
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

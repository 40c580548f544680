// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// Metrics counts and times calls to Vault. All [Client]s of the process share
// one, so that the counters survive a reload. A nil *Metrics counts nothing. It
// is safe for concurrent use.
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewMetrics registers the metrics of this package with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	return &Metrics{
		requests: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "trousseau_vault_requests_total",
			Help: "Calls to Vault, by operation and code (ok or the error class).",
		}, []string{"operation", "code"}),
		duration: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "trousseau_vault_request_duration_seconds",
			Help:    "Duration of calls to Vault in seconds, by operation.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"operation"}),
	}
}

func (m *Metrics) observe(operation string, err *fault.Error, took time.Duration) {
	if m == nil {
		return
	}
	code := "ok"
	if err != nil {
		code = string(err.Class)
	}
	m.requests.WithLabelValues(operation, code).Inc()
	m.duration.WithLabelValues(operation).Observe(took.Seconds())
}

// SPDX-License-Identifier: Apache-2.0

// Package ops is the operator's HTTP page: /livez, /readyz and /metrics, on a mux and a registry of their own.
package ops

import (
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// Options says what the pages show and where they are served.
type Options struct {
	// Addr is the TCP address New listens on, such as "127.0.0.1:8095"; port 0 picks a free one. The pages have no
	// authentication. Handler ignores it.
	Addr string
	// Registry is what /metrics shows; nil shows nothing. Handler adds the metric of its own errors to it.
	Registry *prometheus.Registry
	// Ready are the checks /readyz asks, in this order. None means ready.
	Ready []Check
	// Logger may be nil: nothing is logged.
	Logger *zap.Logger
}

func (o Options) withDefaults() Options {
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return o
}

// Handler returns the pages:
//
//	/         the list of them
//	/livez    200 as long as the process can answer; it depends on nothing else, so a restart is never the answer
//	          to somebody else's outage
//	/readyz   200 or 503, one line per check; JSON with ?verbose or "Accept: application/json"
//	/metrics  Prometheus text or OpenMetrics, as the scraper asks
//
// Everything else is 404, and every method but GET and HEAD 405. Request bodies are not read.
func Handler(o Options) http.Handler {
	o = o.withDefaults()
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", text("/livez\n/readyz\n/metrics\n"))
	mux.Handle("GET /livez", text("ok\n"))
	mux.Handle("GET /readyz", readyz(o.Ready))
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{
		// One broken collector must not hide all other metrics in the middle of an incident.
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          zap.NewStdLog(o.Logger.Named("metrics")),
		Registry:          o.Registry,
		EnableOpenMetrics: true,
	}))
	return uncached(mux)
}

func text(page string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, page)
	}
}

// uncached keeps a proxy on the way from answering with yesterday's health.
func uncached(next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package ops serves the ops endpoints, /livez, /startupz, /readyz and /metrics, over HTTP.
package ops

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// Check is one condition of a page.
type Check struct {
	// Name is one word, shown on the page.
	Name string
	// Check returns nil when the condition holds, and otherwise the reason. The reason is shown to every client, so it
	// must contain no secret. Check runs on every request and concurrently, so it must be quick and do no I/O.
	Check func() error
}

// Register adds the Go runtime's and the process's metrics under their usual names, go_* and process_*, and
// trousseau_build_info, whose labels are the given version and source revision, and the Go version. It panics if one of
// them is registered already.
func Register(reg prometheus.Registerer, version, revision string) {
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "trousseau_build_info",
			Help:        "A constant 1, labelled with the version, source revision and Go version of this build.",
			ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": runtime.Version()},
		}, func() float64 { return 1 }),
	)
}

// Handler returns the ops endpoints:
//
//	/         their list
//	/livez    200 as long as the process can answer; it depends on nothing else, because a restart does not end an
//	          outage of Vault
//	/startupz 200 or 503, one line per check; JSON with ?verbose or "Accept: application/json"
//	/readyz   the same with other checks
//	/metrics  Prometheus text or OpenMetrics, as the client asks
//
// Everything else is 404, and every method but GET and HEAD 405. Request bodies are not read.
func Handler(o Options) http.Handler {
	o = o.withDefaults()
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", text(http.StatusOK, "/livez\n/startupz\n/readyz\n/metrics\n"))
	mux.Handle("GET /livez", text(http.StatusOK, "ok\n"))
	mux.Handle("GET /startupz", page(o.Started))
	mux.Handle("GET /readyz", page(o.Ready))
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{
		// One broken collector must not hide all other metrics during an incident.
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          zap.NewStdLog(o.Logger.Named("metrics")),
		Registry:          o.Registry,
		EnableOpenMetrics: true,
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // a proxy must not answer with an old health
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // an error means that the client has disconnected
	}
}

type result struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

func page(checks []Check) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		status, results := http.StatusOK, []result{}
		var lines strings.Builder // as on the API server's /readyz?verbose (k8s.io/apiserver/pkg/server/healthz)
		for _, c := range checks {
			if err := c.Check(); err != nil {
				status = http.StatusServiceUnavailable
				results = append(results, result{Name: c.Name, Reason: err.Error()})
				// A joined error has one line for each cause.
				fmt.Fprintf(&lines, "[-]%s: %s\n", c.Name, strings.ReplaceAll(err.Error(), "\n", "; "))
			} else {
				results = append(results, result{Name: c.Name, OK: true})
				fmt.Fprintf(&lines, "[+]%s ok\n", c.Name)
			}
		}
		if len(checks) == 0 {
			lines.WriteString("ok\n")
		}
		if r.URL.Query().Has("verbose") || strings.Contains(strings.Join(r.Header.Values("Accept"), ","), "application/json") {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(struct {
				Ready  bool     `json:"ready"`
				Checks []result `json:"checks"`
			}{status == http.StatusOK, results})
			return
		}
		text(status, lines.String())(w, r)
	}
}

// SPDX-License-Identifier: Apache-2.0

package ops_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trousseau-io/trousseau/internal/daemon/ops"
)

func request(o ops.Options, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	ops.Handler(o).ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(b.String(), "\r\n\r\n")
	return text
}

func ok() error { return nil }

func TestEndpoints(t *testing.T) {
	const plain, jsonType = "text/plain; charset=utf-8", "application/json"
	ready := []ops.Check{{Name: "config", Check: ok}, {Name: "vault", Check: ok}}
	notReady := []ops.Check{
		{Name: "config", Check: ok},
		{Name: "vault", Check: func() error { return errors.Join(errors.New("is sealed"), errors.New("since noon")) }},
	}
	const notReadyJSON = `{"ready":false,"checks":[{"name":"config","ok":true},{"name":"vault","ok":false,"reason":"is sealed\nsince noon"}]}` + "\n"

	for _, tt := range []struct {
		name   string
		checks []ops.Check
		method string
		target string
		accept string
		status int
		typ    string
		body   string
	}{
		{name: "index", target: "/", status: 200, typ: plain, body: "/livez\n/startupz\n/readyz\n/metrics\n"},
		{name: "live", target: "/livez", status: 200, typ: plain, body: "ok\n"},
		{name: "live whatever the checks say", checks: notReady, target: "/livez", status: 200, typ: plain, body: "ok\n"},
		{name: "ready", checks: ready, target: "/readyz", status: 200, typ: plain, body: "[+]config ok\n[+]vault ok\n"},
		{name: "started, although not ready", checks: notReady, target: "/startupz", status: 200, typ: plain, body: "[+]config ok\n"},
		{name: "not ready", checks: notReady, target: "/readyz", status: 503, typ: plain, body: "[+]config ok\n[-]vault: is sealed; since noon\n"},
		{name: "no checks", target: "/readyz", status: 200, typ: plain, body: "ok\n"},
		{name: "json by query", checks: notReady, target: "/readyz?verbose", status: 503, typ: jsonType, body: notReadyJSON},
		{name: "json by query with a value", checks: notReady, target: "/readyz?verbose=1", status: 503, typ: jsonType, body: notReadyJSON},
		{name: "json by header", checks: notReady, target: "/readyz", accept: "text/html, application/json;q=0.9", status: 503, typ: jsonType, body: notReadyJSON},
		{name: "json of no checks", target: "/readyz?verbose", status: 200, typ: jsonType, body: `{"ready":true,"checks":[]}` + "\n"},
		{name: "a browser gets text", checks: ready, target: "/readyz", accept: "text/html,*/*", status: 200, typ: plain, body: "[+]config ok\n[+]vault ok\n"},
		{name: "head", checks: notReady, method: "HEAD", target: "/readyz", status: 503, typ: plain},
		{name: "another path", target: "/debug/pprof/", status: 404, typ: plain, body: "404 page not found\n"},
		{name: "below an endpoint", target: "/livez/x", status: 404, typ: plain, body: "404 page not found\n"},
		{name: "post", method: "POST", target: "/livez", status: 405, typ: plain, body: "Method Not Allowed\n"},
		{name: "delete", method: "DELETE", target: "/metrics", status: 405, typ: plain, body: "Method Not Allowed\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.method == "" {
				tt.method = "GET"
			}
			r := request(ops.Options{Started: ready[:1], Ready: tt.checks}, tt.method, tt.target, "Accept", tt.accept)
			if r.StatusCode != tt.status {
				t.Errorf("status %d, want %d", r.StatusCode, tt.status)
			}
			if got := r.Header.Get("Content-Type"); got != tt.typ {
				t.Errorf("content type %q, want %q", got, tt.typ)
			}
			if got := r.Header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("cache control %q, want no-store", got)
			}
			// The recorder, unlike a server, keeps the body of a HEAD.
			if got := body(t, r); tt.method != "HEAD" && got != tt.body {
				t.Errorf("body %q, want %q", got, tt.body)
			}
		})
	}
}

// Every request runs the check again.
func TestReadyzFollowsTheCheck(t *testing.T) {
	var state error
	h := ops.Handler(ops.Options{Ready: []ops.Check{{Name: "vault", Check: func() error { return state }}}})
	for _, tt := range []struct {
		state error
		want  int
	}{{nil, 200}, {errors.New("down"), 503}, {nil, 200}} {
		state = tt.state
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		if w.Code != tt.want {
			t.Errorf("status %d with check %v, want %d", w.Code, tt.state, tt.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	ops.Register(reg, "v1.2.3", "abc123")

	r := request(ops.Options{Registry: reg}, "GET", "/metrics")
	if got := r.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Errorf("content type %q, want the Prometheus text format", got)
	}
	page := body(t, r)
	for _, want := range []string{
		`trousseau_build_info{goversion="go`, `revision="abc123",version="v1.2.3"} 1`,
		"\ngo_goroutines ", "\nprocess_open_fds ", "\npromhttp_metric_handler_errors_total",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}

	r = request(ops.Options{Registry: reg}, "GET", "/metrics", "Accept", "application/openmetrics-text; version=1.0.0")
	if got := r.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text; version=1.0.0") {
		t.Errorf("content type %q, want OpenMetrics", got)
	}
	if got := body(t, r); !strings.HasSuffix(got, "# EOF\n") {
		t.Error("the OpenMetrics page lacks its end mark")
	}
}

// One broken collector is logged and hides nothing else.
func TestMetricsSurvivesBrokenCollector(t *testing.T) {
	reg := prometheus.NewRegistry()
	ops.Register(reg, "v1", "")
	if err := reg.Register(broken{}); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	r := request(ops.Options{Registry: reg, Logger: zap.New(core)}, "GET", "/metrics")
	if r.StatusCode != 200 || !strings.Contains(body(t, r), "trousseau_build_info") {
		t.Errorf("status %d, want 200 and the other metrics", r.StatusCode)
	}
	if logs.Len() != 1 || !strings.Contains(logs.All()[0].Message, "out of order") {
		t.Errorf("logged %v, want the collector's error", logs.All())
	}
}

type broken struct{}

var brokenDesc = prometheus.NewDesc("broken", "Never works.", nil, nil)

func (broken) Describe(ch chan<- *prometheus.Desc) { ch <- brokenDesc }
func (broken) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(brokenDesc, errors.New("out of order"))
}

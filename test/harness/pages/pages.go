// SPDX-License-Identifier: Apache-2.0

// Package pages reads the ops endpoints /readyz and /metrics of a trousseau process.
package pages

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Client queries the ops endpoints at one address. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

// New returns a client for addr: host:port, or unix:// and the path of a socket.
func New(addr string) *Client {
	// Do not reuse connections: one could belong to a process that has ended.
	transport := &http.Transport{DisableKeepAlives: true}
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		addr = "localhost"
	}
	return &Client{base: "http://" + addr, http: &http.Client{Transport: transport, Timeout: 5 * time.Second}}
}

// Ready requests /readyz and returns the status code and the trimmed body.
func (c *Client) Ready(ctx context.Context) (code int, text string, err error) {
	code, text, err = c.get(ctx, "/readyz")
	return code, strings.TrimSpace(text), err
}

// Metrics requests /metrics.
func (c *Client) Metrics(ctx context.Context) (Metrics, error) {
	code, text, err := c.get(ctx, "/metrics")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s/metrics: got %d, want 200", c.base, code)
	}
	return Metrics(text), err
}

func (c *Client) get(ctx context.Context, path string) (code int, text string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", fmt.Errorf("reading %s%s: %w", c.base, path, err)
	}
	return resp.StatusCode, string(body), nil
}

// Metrics is a page in the Prometheus text format.
type Metrics string

// Sum adds up the gauges and counters with this name and all of the labels, given as
// alternating names and values. found reports whether there is one.
func (m Metrics) Sum(name string, labels ...string) (sum float64, found bool, err error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(m)))
	if err != nil {
		return 0, false, fmt.Errorf("parsing /metrics: %w", err)
	}
	for _, sample := range families[name].GetMetric() {
		if has(sample, labels) {
			found = true
			sum += sample.GetGauge().GetValue() + sample.GetCounter().GetValue()
		}
	}
	return sum, found, nil
}

func has(sample *dto.Metric, labels []string) bool {
	values := make(map[string]string)
	for _, l := range sample.GetLabel() {
		values[l.GetName()] = l.GetValue()
	}
	for i := 0; i < len(labels); i += 2 {
		if values[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Ready asks /readyz and returns whether all is well and what the page says.
func (p *Process) Ready(ctx context.Context) (ok bool, page string, err error) {
	code, page, err := p.get(ctx, "/readyz")
	return code == http.StatusOK, strings.TrimSpace(page), err
}

// Metrics returns what /metrics says.
func (p *Process) Metrics(ctx context.Context) (string, error) {
	code, page, err := p.get(ctx, "/metrics")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("asking /metrics: got %d", code)
	}
	return page, err
}

// Metric asks /metrics and returns the sum over the samples of a metric that
// carry all the labels, each written as name="value"; 0 if there is none.
func (p *Process) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	page, err := p.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	lines := bufio.NewScanner(strings.NewReader(page))
	for lines.Scan() {
		sample, value, _ := strings.Cut(lines.Text(), "} ")
		if !strings.Contains(sample, "{") {
			sample, value, _ = strings.Cut(lines.Text(), " ")
		}
		if found, rest, _ := strings.Cut(sample, "{"); found != name || !containsAll(rest, labels) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("reading metric %s: %w", name, err)
		}
		sum += v
	}
	return sum, lines.Err()
}

func containsAll(s string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(s, part) {
			return false
		}
	}
	return true
}

func (p *Process) get(ctx context.Context, path string) (code int, page string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.ops+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("asking %s: %w", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", fmt.Errorf("reading %s: %w", path, err)
	}
	return resp.StatusCode, string(body), nil
}

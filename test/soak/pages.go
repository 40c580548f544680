// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// pages are what trousseau shows to its operator.
type pages struct {
	base string
	http *http.Client
}

func newPages(addr string) *pages {
	// A connection kept would be one of a process that may be gone.
	return &pages{base: "http://" + addr, http: &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second,
	}}
}

// ready returns nil if /readyz says 200.
func (p *pages) ready(ctx context.Context) error {
	code, text, err := p.get(ctx, "/readyz")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("/readyz says %d: %s", code, strings.TrimSpace(text))
	}
	return err
}

// metrics returns the page and the samples on it that have no labels.
func (p *pages) metrics(ctx context.Context) (text string, samples map[string]float64, err error) {
	code, text, err := p.get(ctx, "/metrics")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("/metrics says %d", code)
	}
	samples = map[string]float64{}
	for line := range strings.Lines(text) {
		var name string
		var value float64
		if n, _ := fmt.Sscanf(line, "%s %g", &name, &value); n == 2 {
			samples[name] = value
		}
	}
	return text, samples, err
}

func (p *pages) get(ctx context.Context, path string) (code int, text string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

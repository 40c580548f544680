// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"net/http"
)

// Ready requests /readyz and returns whether it answers 200, and its body.
func (p *Process) Ready(ctx context.Context) (ok bool, page string, err error) {
	code, page, err := p.ops.Ready(ctx)
	return code == http.StatusOK, page, err
}

// Metrics returns the body of /metrics.
func (p *Process) Metrics(ctx context.Context) (string, error) {
	page, err := p.ops.Metrics(ctx)
	return string(page), err
}

// Metric requests /metrics and returns the sum over a metric's samples that have all
// of the labels, given as alternating names and values. It returns 0 if there is
// none.
func (p *Process) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	page, err := p.ops.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	sum, _, err := page.Sum(name, labels...)
	return sum, err
}

// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"net/http"
)

// Ready asks /readyz and returns whether all is well and what the page says.
func (p *Process) Ready(ctx context.Context) (ok bool, page string, err error) {
	code, page, err := p.ops.Ready(ctx)
	return code == http.StatusOK, page, err
}

// Metrics returns what /metrics says.
func (p *Process) Metrics(ctx context.Context) (string, error) {
	page, err := p.ops.Metrics(ctx)
	return string(page), err
}

// Metric asks /metrics and returns the sum over the samples of a metric that
// carry all the labels, given as name and value in turn; 0 if there is none.
func (p *Process) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	page, err := p.ops.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	sum, _, err := page.Sum(name, labels...)
	return sum, err
}

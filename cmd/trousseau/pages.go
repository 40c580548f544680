// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/daemon/ops"
)

// pagesRetry is how often a port that is taken is tried again: the predecessor
// holds it until it knows of the takeover.
const pagesRetry = time.Second

// pages are the operator's: /livez, /readyz and /metrics. KMS serves without
// them if need be.
type pages struct {
	options ops.Options
	server  *ops.Server // nil without a port
}

// listen takes the port, or says once why it could not.
func (p *pages) listen(ctx context.Context) {
	if p.options.Addr == "" {
		return
	}
	server, err := ops.New(ctx, p.options)
	if err != nil {
		p.options.Logger.Error("/livez, /readyz and /metrics are not served; KMS is", zap.Error(err), zap.Duration("retry", pagesRetry))
		return
	}
	p.server = server
}

// serve serves until ctx is done, as soon as the port can be had.
func (p *pages) serve(ctx context.Context) {
	if p.options.Addr == "" {
		return
	}
	for p.server == nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pagesRetry):
		}
		if server, err := ops.New(ctx, p.options); err == nil {
			p.server = server
			p.options.Logger.Info("/livez, /readyz and /metrics are served now")
		}
	}
	if err := p.server.Serve(ctx); err != nil {
		p.options.Logger.Error("/livez, /readyz and /metrics are no longer served; KMS is", zap.Error(err))
	}
}

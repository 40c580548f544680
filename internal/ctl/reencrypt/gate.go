// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

// gate is closed while an API server may still write under an older key_id than that
// of the plugins.
type gate struct {
	servers []*apiserver.Server
	plugins []fleet.Node
	waiting func(reason string)
	// written says whether an API server has written under the key_id, as of the
	// last check.
	written bool
}

func newGate(ctx context.Context, o Options, c *cluster) (*gate, error) {
	urls, err := apiServers(ctx, o, c)
	if err != nil {
		return nil, err
	}
	g := &gate{plugins: o.Plugins, waiting: o.Waiting}
	for _, url := range urls {
		s, err := apiserver.New(c.config, url)
		if err != nil {
			return nil, fmt.Errorf("--api-server %s: %w", url, err)
		}
		g.servers = append(g.servers, s)
	}
	return g, nil
}

func (g *gate) names() (names []string) {
	for _, s := range g.servers {
		names = append(names, s.URL())
	}
	return names
}

// check returns the hash of the key_id that all plugins and all API servers have, or
// why there is none.
func (g *gate) check(ctx context.Context) (hash string, err error) {
	if hash, err = g.agreed(ctx); err != nil {
		return "", err
	}
	g.written = false
	known := make(map[string]*apiserver.Server)
	for _, s := range g.servers {
		ids, err := view(ctx, s)
		if err != nil {
			return "", err
		}
		if !knows(ids, hash) {
			return "", fmt.Errorf("the API server %s does not know the plugins' key_id yet (hash %.19s…): it asks its plugin once a minute; run this again later, or with --wait 2m", s.URL(), hash)
		}
		if other := known[ids.Server]; other != nil && ids.Server != "" {
			return "", permanent{fmt.Errorf("%s and %s are the same API server, or two on hosts with the same hostname: give the address of each server with --api-server, not that of a load balancer, and give each host a unique hostname", other.URL(), s.URL())}
		}
		known[ids.Server] = s
		g.written = g.written || ids.Written[hash]
	}
	return hash, nil
}

// agreed returns the hash of the key_id that all plugins encrypt under.
func (g *gate) agreed(ctx context.Context) (string, error) {
	r := fleet.Survey(ctx, fleet.Options{Nodes: g.plugins})
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if r.OK() && len(r.KeyIDs) == 1 {
		return r.KeyIDs[0].Hash, nil
	}
	var problems []string
	for _, f := range r.Findings {
		if f.Severity == finding.Error && f.Subject == "" {
			problems = append(problems, f.Text)
		}
	}
	for _, a := range r.Nodes {
		if a.Health() != "healthy" {
			problems = append(problems, a.Node+" is "+a.Line())
		}
	}
	if len(problems) == 0 {
		problems = []string{"the plugins have no key yet"}
	}
	return "", fmt.Errorf("the plugins are not all healthy with the same key_id: %s", strings.Join(problems, "; "))
}

// permanent is an error that does not go away by waiting.
type permanent struct{ error }

// between is the time between two checks.
const between = 2 * time.Second

// await checks until the gate is open, at least once and for at most within. It gives
// up early on a permanent error.
func (g *gate) await(ctx context.Context, within time.Duration) (string, error) {
	deadline := time.Now().Add(within)
	again := time.NewTicker(between)
	defer again.Stop()
	told := ""
	for {
		hash, err := g.check(ctx)
		var final permanent
		switch {
		case err == nil:
			return hash, nil
		case ctx.Err() != nil:
			return "", errors.New("interrupted")
		case errors.As(err, &final), time.Now().After(deadline):
			return "", err
		}
		if why := err.Error(); g.waiting != nil && why != told {
			g.waiting(why)
			told = why
		}
		select {
		case <-ctx.Done():
		case <-again.C:
		}
	}
}

// hold waits for API servers and plugins that are down, and returns an error if the
// key_id has changed.
func (g *gate) hold(ctx context.Context, hash string, patience time.Duration) error {
	now, err := g.await(ctx, patience)
	if err != nil {
		return err
	}
	if now != hash {
		return errors.New("the key was rotated during the run, so all objects must be rewritten again")
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

// gate is closed as long as an API server may still write under another key_id
// than the plugins'.
type gate struct {
	servers []*apiserver.Server
	plugins []fleet.Node
	waiting func(reason string)
	// written says whether an API server has written under the key_id; as of the
	// last look.
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

// look returns the hash of the key_id that all plugins and all API servers have,
// or why there is none.
func (g *gate) look(ctx context.Context) (hash string, err error) {
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
			return "", fmt.Errorf("the API server %s does not have the plugins' key_id yet, the one with the hash %.19s…: it asks its plugin once a minute, so run this again, or with --wait 2m", s.URL(), hash)
		}
		if other := known[ids.Server]; other != nil && ids.Server != "" {
			return "", lasting{fmt.Errorf("%s and %s are one and the same API server, or two on hosts of the same name: give the address of each as --api-server, and none of a load balancer, and each host a name of its own", other.URL(), s.URL())}
		}
		known[ids.Server] = s
		g.written = g.written || ids.Written[hash]
	}
	return hash, nil
}

// agreed is the key_id that the plugins say they encrypt under.
func (g *gate) agreed(ctx context.Context) (string, error) {
	r := fleet.Survey(ctx, fleet.Options{Nodes: g.plugins})
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if r.OK && len(r.KeyIDs) == 1 {
		return r.KeyIDs[0].Hash, nil
	}
	problems := r.Problems
	for _, a := range r.Nodes {
		if a.Health() != "healthy" {
			problems = append(problems, a.Node+" is "+a.Line())
		}
	}
	if len(problems) == 0 {
		problems = []string{"the plugins have no key yet"}
	}
	return "", fmt.Errorf("the plugins are not healthy with one key_id: %s", strings.Join(problems, "; "))
}

// lasting is a reason that waiting does not remove.
type lasting struct{ error }

// between is the time between two looks.
const between = 2 * time.Second

// await looks until the gate is open, at least once, as long as that may help.
func (g *gate) await(ctx context.Context, within time.Duration) (string, error) {
	deadline := time.Now().Add(within)
	again := time.NewTicker(between)
	defer again.Stop()
	told := ""
	for {
		hash, err := g.look(ctx)
		var final lasting
		switch {
		case err == nil:
			return hash, nil
		case ctx.Err() != nil:
			return "", errors.New("stopped")
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

// hold waits for API servers and plugins that are down for a while, and returns an
// error if the key_id is another by now.
func (g *gate) hold(ctx context.Context, hash string, patience time.Duration) error {
	now, err := g.await(ctx, patience)
	if err != nil {
		return err
	}
	if now != hash {
		return errors.New("the key was rotated once more meanwhile, so that all of it is to be rewritten again")
	}
	return nil
}

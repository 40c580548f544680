// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

// gate is closed while an API server may still write under an older key_id than that
// of the plugins.
//
// Each provider of an API server learns the key_id by itself, also if two are names of
// the same plugin. So those that may write the resources must know it: by the given
// EncryptionConfiguration, or else all of them.
type gate struct {
	servers []*apiserver.Server
	plugins fleet.Options
	// want is the hash that all must have; "" for the one that the plugins have.
	want    string
	waiting func(reason string)
	// writers are the providers of the resources, by name; nil if they are unknown.
	writers    []string
	encryption *encryption

	// As of the last check: the providers that know the key_id, and what each server
	// has said. Began is what it said when the gate opened.
	providers  []string
	now, began map[*apiserver.Server]apiserver.KeyIDs
}

func newGate(ctx context.Context, o Options, c *cluster, kinds []kind) (*gate, error) {
	g := &gate{plugins: o.Plugins, want: o.KeyIDHash, waiting: o.Waiting}
	if o.EncryptionConfig != nil {
		var err error
		if g.encryption, err = newEncryption(o.EncryptionConfig); err != nil {
			return nil, fmt.Errorf("--encryption-config: %w", err)
		}
		for _, k := range kinds {
			name, err := g.encryption.writer(k.gvr.GroupResource())
			if err != nil {
				return nil, fmt.Errorf("--encryption-config: %w", err)
			}
			g.writers = append(g.writers, name)
		}
	}
	urls, err := apiServers(ctx, o, c)
	if err != nil {
		return nil, err
	}
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
	if g.want != "" && hash != g.want {
		return "", fmt.Errorf("the plugins do not have the newest key version yet (hash %.19s…, not %.19s…)", hash, g.want)
	}
	known := make(map[string]*apiserver.Server)
	providers := make(map[string]bool)
	now := make(map[*apiserver.Server]apiserver.KeyIDs)
	for _, s := range g.servers {
		ids, err := view(ctx, s)
		if err != nil {
			return "", err
		}
		if err := g.knows(s, ids, hash, providers); err != nil {
			return "", err
		}
		if other := known[ids.Server]; other != nil && ids.Server != "" {
			return "", permanent{fmt.Errorf("%s and %s are the same API server, or two on hosts with the same hostname: give the address of each server with --api-server, not that of a load balancer, and give each host a unique hostname", other.URL(), s.URL())}
		}
		known[ids.Server] = s
		now[s] = ids
	}
	g.now, g.providers = now, slices.Sorted(maps.Keys(providers))
	return hash, nil
}

// knows returns an error unless all providers of an API server that may write know the
// key_id. It adds their names to providers.
func (g *gate) knows(s *apiserver.Server, ids apiserver.KeyIDs, hash string, providers map[string]bool) error {
	writers := g.writers
	if g.encryption != nil {
		if err := g.encryption.loadedBy(s, ids); err != nil {
			return err
		}
	} else {
		writers = live(ids)
	}
	hint := ""
	if slices.ContainsFunc(writers, func(name string) bool { return ids.Told[name].Hash == hash }) {
		hint = "; if it is not Trousseau, give --encryption-config"
	}
	for _, name := range writers {
		if ids.Told[name].Hash != hash {
			return fmt.Errorf("the API server %s does not know the plugins' key_id yet (hash %.19s…, provider %s): it asks its plugin once a minute; run this again later, or with --wait 2m%s", s.URL(), hash, name, hint)
		}
		providers[name] = true
	}
	return nil
}

// live returns the providers of an API server. It keeps the times of those that a reload
// of its configuration has removed, but no longer asks them; the others have all been
// asked within a minute.
func live(ids apiserver.KeyIDs) []string {
	var newest time.Time
	for _, told := range ids.Told {
		if told.At.After(newest) {
			newest = told.At
		}
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(ids.Told)) {
		if newest.Sub(ids.Told[name].At) < 90*time.Second {
			names = append(names, name)
		}
	}
	return names
}

// agreed returns the hash of the key_id that all plugins encrypt under.
func (g *gate) agreed(ctx context.Context) (string, error) {
	r := fleet.Survey(ctx, g.plugins)
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
			return "", errInterrupted
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

// errRotated ends a run whose objects may be under the key_id from before.
var errRotated = errors.New("the key was rotated during the run, so all objects must be rewritten again")

// hold waits for API servers and plugins that are down, and returns errRotated if the
// key_id has changed.
func (g *gate) hold(ctx context.Context, hash string, patience time.Duration) error {
	now, err := g.await(ctx, patience)
	if err != nil {
		return err
	}
	if now != hash {
		return errRotated
	}
	return nil
}

// used returns the providers under which the API servers have written a resource since
// the gate opened, or read it. It is false if a server does not say.
func (g *gate) used(resource string, written bool) ([]string, bool) {
	names := make(map[string]bool)
	for s, ids := range g.now {
		if ids.Uses == nil {
			return nil, false
		}
		for use, n := range ids.Uses {
			if before := g.began[s].Uses[use]; n >= before { // less after a restart
				n -= before
			}
			if n > 0 && use.Written == written && use.Resource == resource {
				names[provider(use.Prefix)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names)), true
}

// provider names a provider by the prefix of its values: a KMS v2 provider by its name.
func provider(prefix string) string {
	if name, found := strings.CutPrefix(prefix, apiserver.KMSv2Prefix); found {
		return strings.TrimSuffix(name, ":")
	}
	if prefix == "" {
		return "identity"
	}
	return prefix
}

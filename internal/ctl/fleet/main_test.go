// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/daemon/ops"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// patience bounds every wait of these tests.
const patience = 15 * time.Second

// daemon has Trousseau's parts, with real ops endpoints but without the socket.
type daemon struct {
	t        *testing.T
	vault    *vaulttest.Server
	kek      *live.KEK
	contents chan watch.Content[*config.Config]
	addr     string // of the ops endpoints
}

// start starts a daemon without a configuration.
func start(t *testing.T, vault *vaulttest.Server, version string) *daemon {
	t.Helper()
	registry := prometheus.NewRegistry()
	d := &daemon{t: t, vault: vault, contents: make(chan watch.Content[*config.Config], 1)}
	d.kek = live.New(live.Options{
		Contents: d.contents, RequestTimeout: patience, ProbeInterval: 200 * time.Millisecond,
		OutageGrace: time.Minute, Registerer: registry,
	})
	ops.Register(registry, version, "0123456789abcdef")
	pages := httptest.NewServer(ops.Handler(ops.Options{
		Registry: registry, Ready: []ops.Check{{Name: "kek", Check: d.kek.Degraded}},
	}))
	t.Cleanup(pages.Close)
	d.addr = strings.TrimPrefix(pages.URL, "http://")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); d.kek.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return d
}

// configure delivers a configuration with this key and token.
func (d *daemon) configure(key, token string) {
	text := fmt.Sprintf("vault:\n  keynames: [%s]\n  address: %s\n  token: %s\n", key, d.vault.URL(), token)
	sum := sha256.Sum256([]byte(text))
	cfg, err := config.Parse([]byte(text), nil)
	d.contents <- watch.Content[*config.Config]{
		Path: "/etc/trousseau/config.yaml", Digest: hex.EncodeToString(sum[:]), Value: cfg, Err: err,
	}
}

// until fetches until the result is as wanted.
func (d *daemon) until(what string, met func(fleet.State) bool) fleet.State {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	var s fleet.State
	for n := node(d.t, d.addr); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if s, err = n.Fetch(ctx); err != nil {
			d.t.Fatalf("waiting until %s: %v after %+v", what, err, s)
		}
		if met(s) {
			return s
		}
	}
}

func healthy(s fleet.State) bool { return s.Healthy }

func node(t *testing.T, addr string) fleet.Node {
	t.Helper()
	n, err := fleet.ParseNode(addr)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func nodes(t *testing.T, addrs ...string) []fleet.Node {
	t.Helper()
	all, err := fleet.ParseNodes(addrs)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/daemon/kms"
	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
	"github.com/trousseau-io/trousseau/test/harness/agent"
	"github.com/trousseau-io/trousseau/test/harness/plugin"
	"github.com/trousseau-io/trousseau/test/harness/usage"
)

// daemon is a trousseau that serves its socket.
type daemon interface {
	Socket() string
	ConfigFile() string
	Stop() error
	// cpu returns the CPU time that it has used; 0 if it has no process of its own.
	cpu() (time.Duration, error)
	// peak returns its largest resident memory, in MiB, if it has a process of its
	// own.
	peak() (mib float64, ok bool)
}

// configure gives a plugin its configuration, as Vault Agent does.
func (s *stage) configure(p daemon, c *cluster) error {
	text := agent.Template{KeyNames: []string{c.key}, Address: s.vault.reach().url, Token: c.token}.String()
	return agent.Render(p.ConfigFile(), text+"  vaultCACert: "+s.ca+"\n")
}

// process is a daemon with a process of its own.
type process struct{ *plugin.Process }

func startProcess(ctx context.Context, binary, dir string, flags []string) (daemon, error) {
	p, err := plugin.Start(ctx, plugin.Options{Binary: binary, Dir: dir, Args: flags})
	if err != nil {
		return nil, err
	}
	return process{p}, nil
}

func (p process) cpu() (time.Duration, error) { return usage.CPU(p.PID()) }

func (p process) peak() (float64, bool) {
	r, err := usage.Memory(p.PID())
	return r.Peak, err == nil
}

// inside is a daemon inside this process, for those that the memory has no room for.
// It is made of the daemon's own parts, so it makes the same calls to Vault.
type inside struct {
	dir   string
	end   context.CancelFunc
	parts sync.WaitGroup
}

func startInside(ctx context.Context, dir string, flags []string) (daemon, error) {
	// The daemon's defaults.
	const requestTimeout, probeInterval, outageGrace = 2500 * time.Millisecond, 30 * time.Second, 5 * time.Minute
	set := flag.NewFlagSet("", flag.ContinueOnError)
	calls := set.Int("max-vault-requests", 3, "")
	if err := set.Parse(flags); err != nil {
		return nil, err
	}
	p := &inside{dir: dir}
	registry := prometheus.NewRegistry()
	watcher := watch.New(watch.Options[*config.Config]{Path: p.ConfigFile(), Parse: config.Parse, Read: config.ReadFile})
	kek := live.New(live.Options{
		Contents: watcher.Contents(), Reread: watcher.Look, RequestTimeout: requestTimeout,
		ProbeInterval: probeInterval, OutageGrace: outageGrace, MaxVaultRequests: *calls, Registerer: registry,
	})
	server := kms.New(kms.Options{KEK: kek, RequestTimeout: requestTimeout, Registerer: registry})
	listener, err := unixsock.Listen(ctx, unixsock.Options{Path: p.Socket(), Mode: 0o600})
	if err != nil {
		return nil, err
	}
	ctx, p.end = context.WithCancel(ctx)
	p.parts.Go(func() { watcher.Run(ctx) })
	p.parts.Go(func() { kek.Run(ctx) })
	p.parts.Go(func() {
		context.AfterFunc(ctx, func() { server.Shutdown(ctx) })
		_ = server.Serve(listener)
	})
	return p, nil
}

func (p *inside) Socket() string     { return filepath.Join(p.dir, "kms.sock") }
func (p *inside) ConfigFile() string { return filepath.Join(p.dir, "config.yaml") }

func (p *inside) Stop() error {
	p.end()
	p.parts.Wait()
	return nil
}

func (p *inside) cpu() (time.Duration, error) { return 0, nil }
func (p *inside) peak() (float64, bool)       { return 0, false }

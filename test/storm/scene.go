// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"

	"github.com/trousseau-io/trousseau/test/harness/usage"
)

const (
	// perCluster is the number of plugins of a cluster: one for each control plane
	// node.
	perCluster = 3
	// kmsTimeout is the default timeout of EncryptionConfiguration.
	kmsTimeout = 3 * time.Second
	// room is what a process may take of the memory, in MiB: its peak in a cold
	// start, according to docs/performance.md.
	room = 52
)

// fault is what is wrong with Vault during a storm.
type fault string

const (
	none   fault = "up"
	outage fault = "down first"
	quota  fault = "rate limit"
)

// scene is one storm.
type scene struct {
	clusters, atOnce int
	vault            fault
	// direct means plugins that make one call per seed; flags are Trousseau's.
	direct bool
	flags  []string
}

func (s scene) String() string {
	return fmt.Sprintf("%d clusters, %d at once, Vault %s, %s", s.clusters, s.atOnce, s.vault, s.who())
}

// who names the plugins.
func (s scene) who() string {
	switch {
	case s.direct:
		return "one call per seed"
	case len(s.flags) > 0:
		return "trousseau " + s.flags[0]
	}
	return "trousseau"
}

// scenes returns all storms. In each pair, direct calls come first.
func (o options) scenes() (all []scene) {
	pair := func(s scene) {
		s.direct = true
		all = append(all, s)
		s.direct = false
		all = append(all, s)
	}
	for i, clusters := range o.clusters {
		for _, atOnce := range o.atOnce {
			pair(scene{clusters: clusters, atOnce: atOnce, vault: none})
			if atOnce > 1 {
				all = append(all, scene{clusters: clusters, atOnce: atOnce, vault: none, flags: []string{"--max-vault-requests=1"}})
			}
		}
		pair(scene{clusters: clusters, atOnce: o.atOnce[0], vault: outage})
		if i == 0 && o.quota > 0 {
			pair(scene{clusters: clusters, atOnce: o.atOnce[0], vault: quota})
		}
	}
	return all
}

// stage is what all storms of a run have in common.
type stage struct {
	options
	vault     upstream
	processes int
	dir       string
	ca        string // file
	clusters  []*cluster
	peak      float64 // resident memory of the largest process, in MiB
}

func newStage(ctx context.Context, o options, v upstream) (s *stage, err error) {
	s = &stage{options: o, vault: v, processes: o.processes}
	if s.processes < 0 {
		available, err := usage.Available()
		if err != nil {
			return nil, err
		}
		// Half of it: Vault, this process and the machine's other work need some too.
		s.processes = int(available / 2 / room)
	}
	// A short path: it is part of a socket's path.
	if s.dir, err = os.MkdirTemp("", "storm"); err != nil {
		return nil, err
	}
	s.ca = filepath.Join(s.dir, "ca.pem")
	err = os.WriteFile(s.ca, v.reach().ca, 0o600)
	if err == nil {
		most := 0
		for _, n := range o.clusters {
			most = max(most, n)
		}
		s.clusters, err = setUp(ctx, v.reach(), most, o.seeds, o.random)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stage) close() { _ = os.RemoveAll(s.dir) }

// outcome is what came of a storm. The times are those of all plugins, since Vault
// could be used.
type outcome struct {
	scene
	proven, ready                []time.Duration
	calls                        int // to Vault
	vaultCPU, pluginCPU, ownCPU  time.Duration
	failedStatus, failedDecrypts int
	notReady                     int // plugins; their times are those of the end
	processes                    int
}

func (o outcome) String() string {
	return fmt.Sprintf("%s: ready after %s, %d calls", o.scene, last(o.ready).Round(time.Millisecond), o.calls)
}

// play lets a storm happen.
func (s *stage) play(ctx context.Context, scene scene) (o outcome, err error) {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	o.scene = scene
	var plugins []daemon
	defer func() { err = errors.Join(err, closeAll(plugins)) }()
	if !scene.direct {
		if plugins, err = s.launch(ctx, scene); err != nil {
			return o, err
		}
	}
	servers, err := s.apiServers(ctx, scene, plugins)
	if err != nil {
		return o, err
	}
	switch scene.vault {
	case outage:
		if err := s.vault.down(); err != nil {
			return o, err
		}
	case quota:
		if err := s.vault.limit(ctx, s.quota); err != nil {
			return o, err
		}
	}
	if err := s.vault.forget(); err != nil {
		return o, err
	}
	pluginCPU, err := cpuOf(plugins)
	if err != nil {
		return o, err
	}
	ownCPU, err := usage.CPU(os.Getpid())
	if err != nil {
		return o, err
	}
	vaultCPU, err := s.vault.cpu()
	if err != nil {
		return o, err
	}

	began := time.Now()
	var storm errgroup.Group
	for i, p := range plugins {
		storm.Go(func() error { return s.configure(p, s.clusters[i/perCluster]) })
	}
	for _, a := range servers {
		storm.Go(func() error {
			err := a.start(ctx)
			if late := whole.Err() == nil && ctx.Err() != nil; late && !errors.Is(err, errWrong) {
				return nil // it is counted as not ready
			}
			return err
		})
	}
	if scene.vault == outage {
		time.Sleep(s.outage)
		if err := s.vault.up(ctx); err != nil {
			return o, errors.Join(err, stopAll(cancel, &storm))
		}
		// What it took to start and to be unsealed is not the plugins' fault.
		began = time.Now()
		if vaultCPU, err = s.vault.cpu(); err != nil {
			return o, errors.Join(err, stopAll(cancel, &storm))
		}
	}
	if err := storm.Wait(); err != nil {
		return o, err
	}

	ended := time.Now()
	for _, a := range servers {
		if a.proven.IsZero() || a.decrypted.IsZero() {
			o.notReady++
			a.proven, a.decrypted = ended, ended
		}
		proven, decrypted := a.proven.Sub(began), a.decrypted.Sub(began)
		o.proven, o.ready = append(o.proven, proven), append(o.ready, max(proven, decrypted))
		o.failedStatus, o.failedDecrypts = o.failedStatus+int(a.failedStatus.Load()), o.failedDecrypts+int(a.failedDecrypts.Load())
	}
	after, err := s.vault.cpu()
	o.vaultCPU = after - vaultCPU
	if err == nil {
		o.calls, err = s.vault.calls()
	}
	if err == nil {
		after, err = cpuOf(plugins)
		o.pluginCPU = after - pluginCPU
	}
	if err == nil {
		after, err = usage.CPU(os.Getpid())
		o.ownCPU = after - ownCPU
	}
	if err == nil && scene.vault == quota {
		err = s.vault.limit(whole, 0)
	}
	for _, p := range plugins {
		if peak, ok := p.peak(); ok {
			s.peak, o.processes = max(s.peak, peak), o.processes+1
		}
	}
	return o, err
}

func stopAll(cancel context.CancelFunc, storm *errgroup.Group) error {
	cancel()
	return storm.Wait()
}

// apiServers returns the API servers of a storm, one for each plugin.
func (s *stage) apiServers(ctx context.Context, scene scene, plugins []daemon) (all []*apiServer, err error) {
	for i := range scene.clusters * perCluster {
		c := s.clusters[i/perCluster]
		a := newAPIServer(c.seeds[i%perCluster], scene.atOnce, s.random+uint64(i))
		if scene.direct {
			a.kms, err = newUnshared(ctx, s.vault.reach(), c, scene.atOnce)
		} else {
			a.kms, err = kmsv2.NewGRPCService(ctx, "unix://"+plugins[i].Socket(), "storm", kmsTimeout)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

// launch starts the plugins of a storm. They serve, but have no configuration: on one
// machine, starting many processes would take longer than the storm.
func (s *stage) launch(ctx context.Context, scene scene) ([]daemon, error) {
	plugins := make([]daemon, scene.clusters*perCluster)
	starting, ctxStart := errgroup.WithContext(ctx)
	// A process has ten seconds to listen.
	starting.SetLimit(4)
	for i := range plugins {
		starting.Go(func() (err error) {
			dir := filepath.Join(s.dir, fmt.Sprint(i))
			if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), ctxStart.Err()); err != nil {
				return err
			}
			if i < s.processes {
				plugins[i], err = startProcess(ctx, s.binary, dir, scene.flags)
			} else {
				plugins[i], err = startInside(ctx, dir, scene.flags)
			}
			return err
		})
	}
	if err := starting.Wait(); err != nil {
		return nil, errors.Join(err, closeAll(plugins))
	}
	return plugins, nil
}

func closeAll(plugins []daemon) error {
	errs := make([]error, len(plugins))
	var all sync.WaitGroup
	for i, p := range plugins {
		if p != nil {
			all.Go(func() { errs[i] = p.Stop() })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

func cpuOf(plugins []daemon) (sum time.Duration, err error) {
	for _, p := range plugins {
		used, err := p.cpu()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

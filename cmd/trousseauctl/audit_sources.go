// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
)

// auditReader is the source that audit reads.
type auditReader struct {
	etcd.Reader
	source audit.Source
	// again returns a reader of the same keys that counts nothing outside of them.
	again func() etcd.Reader
	close func()
}

// reader reads the whole key space, unless the audit is limited to some resources.
func (f *auditFlags) reader(ctx context.Context, a *audit.Audit, progress *progress) (auditReader, error) {
	outside := a.AddOutside
	if f.resources != nil {
		outside = nil
	}
	if f.snapshot != "" {
		return auditReader{
			Reader: &etcd.Snapshot{File: f.snapshot, Older: a.AddOlder, Outside: outside, Progress: progress.tell},
			source: audit.Source{Kind: "snapshot", Names: []string{f.snapshot}},
			again:  func() etcd.Reader { return &etcd.Snapshot{File: f.snapshot, Progress: progress.tell} },
			close:  func() {},
		}, nil
	}
	live, err := f.etcd.dial(ctx, progress.tell)
	if err != nil {
		return auditReader{}, err
	}
	live.Outside = outside
	return auditReader{
		Reader: live,
		source: audit.Source{Kind: "etcd", Names: f.etcd.endpoints},
		again:  func() etcd.Reader { live.Outside = nil; return live },
		close:  live.Close,
	}, nil
}

// auditUnwrapper unwraps seeds. Without --verify it has no Unwrapper.
type auditUnwrapper struct {
	drill.Unwrapper
	close func()
}

// connecting is the time limit for Vault or the plugin to answer.
const connecting = 10 * time.Second

func (f *auditFlags) unwrapper(ctx context.Context) (auditUnwrapper, error) {
	bounded, cancel := context.WithTimeout(ctx, connecting)
	defer cancel()
	switch {
	case f.plugin != "":
		plugin, err := drill.DialPlugin(bounded, f.endpoint)
		if err != nil {
			return auditUnwrapper{}, err
		}
		return auditUnwrapper{plugin, plugin.Close}, nil
	case f.vaultConfig != "":
		cfg, err := readConfig(f.vaultConfig)
		if err != nil {
			return auditUnwrapper{}, err
		}
		vault, err := drill.DialVault(bounded, cfg)
		if err != nil {
			return auditUnwrapper{}, err
		}
		return auditUnwrapper{vault, func() {
			// Revoke the token even if the audit was interrupted.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connecting)
			defer cancel()
			vault.Close(ctx)
		}}, nil
	}
	return auditUnwrapper{close: func() {}}, nil
}

// readConfig reads a config.yaml of Trousseau.
func readConfig(name string) (*config.Config, error) {
	text, err := config.ReadFile(name)
	if err != nil {
		return nil, err
	}
	cfg, err := config.Parse(text, config.ReadFile)
	var mistakes *config.Error
	if errors.As(err, &mistakes) {
		return nil, fmt.Errorf("%s is not usable: %w", name, err)
	}
	return cfg, err
}

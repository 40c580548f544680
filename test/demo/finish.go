// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"

	"github.com/trousseau-io/trousseau/test/harness/plugin"
)

// stop stops trousseau and searches its whole log for secrets.
func (d *demo) stop(ctx context.Context) error {
	owner, err := plugin.Owner(ctx, d.plugin.Socket())
	if err != nil {
		return err
	}
	pid := d.plugin.PID()
	d.fact("socket", "served by pid %d; at the start by %d", owner, pid)
	d.found(owner == pid, "no restart of trousseau", "pid %d at the start, %d at the end", pid, owner)

	ending := "exit code 0"
	stopErr := d.plugin.Stop()
	if stopErr != nil {
		ending = stopErr.Error()
	}
	d.fact("SIGTERM", "%s", ending)
	d.found(stopErr == nil, "SIGTERM ends trousseau", "%s", ending)

	log, err := d.plugin.Log()
	if err != nil {
		return err
	}
	_, leaked := d.vault.Leak(log)
	leaks := "0"
	if leaked {
		leaks = "at least 1"
	}
	lines, secrets := strings.Count(log, "\n"), len(d.vault.Secrets())
	d.fact("its log", "%d lines at level debug, searched for %d tokens and plaintexts, as text, base64 and hex", lines, secrets)
	d.found(!leaked, "secrets in the log", "%s of %d", leaks, secrets)
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"

	"github.com/trousseau-io/trousseau/test/harness/plugin"
)

// stop ends trousseau and reads its whole log.
func (d *demo) stop(ctx context.Context) error {
	owner, err := plugin.Owner(ctx, d.plugin.Socket())
	if err != nil {
		return err
	}
	pid := d.plugin.PID()
	d.fact("socket", "belongs to pid %d, as at the start", owner)
	d.found(owner == pid, "no restart of trousseau", "pid %d at the start, %d at the end", pid, owner)

	ending := "exit code 0"
	stopErr := d.plugin.Stop()
	if stopErr != nil {
		ending = stopErr.Error()
	}
	d.fact("SIGTERM", "%s", ending)
	d.found(stopErr == nil, "end of trousseau", "%s", ending)

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
	d.fact("its log", "%d lines at level debug, searched for %d tokens and plaintexts in clear, base64 and hex", lines, secrets)
	d.found(!leaked, "secrets in the log", "%s, of %d looked for", leaks, secrets)
	return nil
}

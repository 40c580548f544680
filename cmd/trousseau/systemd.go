// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/trousseau-io/trousseau/internal/daemon/live"
)

// systemd passes state on to systemd if it started this process, see
// sd_notify(3). Errors are ignored: the service works without it.
func systemd(state string) { _, _ = daemon.SdNotify(false, state) }

// systemdReloading announces a reload, as Type=notify-reload requires.
func systemdReloading() { systemd(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec()) }

// tellSystemd updates the STATUS line of systemctl status every second.
func tellSystemd(ctx context.Context, kek *live.KEK) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for said := ""; ; {
		if now := statusLine(kek); now != said {
			systemd("STATUS=" + now)
			said = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func statusLine(kek *live.KEK) string {
	keyID, err := kek.Status()
	switch degraded := kek.Degraded(); {
	case err != nil:
		return "Not healthy: " + err.Error()
	case degraded != nil:
		return "Degraded, key_id " + keyID + ": " + degraded.Error()
	}
	return "Healthy, key_id " + keyID
}

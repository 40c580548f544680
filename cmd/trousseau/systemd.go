// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/trousseau-io/trousseau/internal/daemon/live"
)

// systemd passes state on to systemd if it started us, see sd_notify(3). That it
// does not listen is no reason to do anything differently.
func systemd(state string) { _, _ = daemon.SdNotify(false, state) }

// systemdReloading opens a reload as Type=notify-reload wants it.
func systemdReloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return
	}
	systemd(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/int64(time.Microsecond)))
}

// tellSystemd keeps the STATUS line of systemctl status current.
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

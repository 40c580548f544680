// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
)

// systemd passes state on to systemd if it started this process, see
// sd_notify(3). Errors are ignored: the service works without it.
func systemd(state string) { _, _ = daemon.SdNotify(false, state) }

// systemdReloading announces a reload, as Type=notify-reload requires.
func systemdReloading() { systemd(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec()) }

// tellSystemd updates the STATUS line of systemctl status every second.
func tellSystemd(ctx context.Context, kek *live.KEK, serving *atomic.Pointer[unixsock.Listener]) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for said := ""; ; {
		if now := statusLine(kek, serving.Load()); now != said {
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

func statusLine(kek *live.KEK, serving *unixsock.Listener) string {
	keyID, err := kek.Status()
	if serving != nil && serving.Published() != nil {
		return "Not healthy: socket: " + serving.Published().Error()
	}
	switch degraded := kek.Degraded(); {
	case err != nil:
		return "Not healthy: " + err.Error()
	case serving == nil:
		return "Standby, key_id " + keyID + ": this process does not serve the socket"
	case degraded != nil:
		return "Degraded, key_id " + keyID + ": " + degraded.Error()
	}
	return "Healthy, key_id " + keyID
}

// feedWatchdog tells systemd that the process is alive, if the unit sets
// WatchdogSec=. It asks four times in that interval, so that one lost answer does
// not end the process.
func feedWatchdog(ctx context.Context, alive func(context.Context) bool) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 4)
	defer tick.Stop()
	for {
		bound, cancel := context.WithTimeout(ctx, interval/4)
		if alive(bound) {
			systemd(daemon.SdNotifyWatchdog)
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// answers requests Status through this process's own socket, and returns false if
// no answer came before ctx was done. Any answer will do: without Vault it is an
// error. It returns true if there is no socket to ask, or its mode forbids this.
func answers(ctx context.Context, serving *unixsock.Listener) bool {
	if serving == nil {
		return true
	}
	// Without ctx's deadline, which would go with the call: the server's answer that
	// it has passed may come before ctx is seen to be done.
	call, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := serving.Dial(ctx)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			cancel()
		}
		return conn, err
	}
	client, err := grpc.NewClient("passthrough:socket", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	if err != nil {
		return false
	}
	defer client.Close()
	_, _ = kmsapi.NewKeyManagementServiceClient(client).Status(call, &kmsapi.StatusRequest{}, grpc.WaitForReady(true))
	return ctx.Err() == nil
}

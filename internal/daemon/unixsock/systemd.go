// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
)

// inherit returns the listening socket that systemd passed to this process (sd_listen_fds(3)), nil if it passed none.
// It removes the LISTEN_ variables from the environment, so only the first call of a process returns the socket.
func inherit(path string) (*net.UnixListener, error) {
	passed, err := activation.Listeners()
	_ = os.Unsetenv("LISTEN_PIDFDID") // newer than activation; cannot fail
	switch {
	case err != nil || len(passed) == 0:
		return nil, err
	case len(passed) > 1:
		return nil, fmt.Errorf("systemd passed %d sockets, only one is served; keep one ListenStream=%s in the socket unit", len(passed), path)
	case passed[0] == nil:
		return nil, fmt.Errorf("systemd passed a file that is not a listening socket; set ListenStream=%s in the socket unit", path)
	}
	sock, _ := passed[0].(*net.UnixListener)
	if addr := passed[0].Addr(); addr.Network() != "unix" || addr.String() != path {
		return nil, fmt.Errorf("systemd passed the %s socket %s, but --listen-addr is the unix socket %s; make ListenStream= and --listen-addr equal",
			addr.Network(), addr, path)
	}
	return sock, nil
}

// SPDX-License-Identifier: Apache-2.0

package loopback

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// DropPackets makes the kernel drop every packet that arrives at a TCP socket from
// now on, as a firewall without state for it does: nothing is acknowledged, and
// nothing is reset. At a listener the packets that connect are dropped; the kernel
// refuses this for Multipath TCP, which net.Listen uses (net.ListenConfig).
func DropPackets(socket syscall.Conn) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("dropping packets: %w", err)
	}
	// A socket filter that accepts no byte of any packet (socket(7), SO_ATTACH_FILTER).
	none := unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	var attached error
	err = raw.Control(func(fd uintptr) {
		attached = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &none)
	})
	if err := errors.Join(err, attached); err != nil {
		return fmt.Errorf("dropping packets: %w", err)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Owner is the process that listens on a socket, as the kernel noted it when that process called listen(2)
// (SO_PEERCRED, unix(7)). The zero value is an owner that the kernel does not name.
type Owner struct {
	PID int // 0: the process lives in a PID namespace that is not visible from here
	UID int
}

// InUseError says that a live process already serves the socket.
type InUseError struct {
	Path string
	PID  int // as Owner.PID
}

// Error names the process and the two ways on.
func (e *InUseError) Error() string {
	by := fmt.Sprintf("process %d", e.PID)
	if e.PID == 0 {
		by = "a process whose id is not visible from here"
	}
	return fmt.Sprintf("socket %s is served by %s; stop it or start with --takeover", e.Path, by)
}

// dialOwner connects to the socket at path and asks the kernel who listens there. It does not block: connecting to
// a unix socket either succeeds or fails at once. That the listener accepts is not needed, so Options.AllowUIDs of
// the one there is no obstacle.
func dialOwner(path string) (Owner, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return Owner{}, err
	}
	defer conn.Close()

	cred, err := credentials(conn)
	if err != nil {
		return Owner{}, err
	}
	return Owner{PID: int(cred.Pid), UID: int(cred.Uid)}, nil
}

// credentials returns what the kernel noted about the process at the other end: of one that connected, at that
// time; of one that listens, when it called listen(2).
func credentials(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, credErr
}

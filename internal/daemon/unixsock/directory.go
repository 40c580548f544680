// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockDirectory opens a directory and keeps every other Listener, of any process, out of it until the file is closed.
// The lock is on the directory itself: there is no lock file, and the kernel releases it when the process ends.
func lockDirectory(ctx context.Context, path string) (*os.File, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("directory %s does not exist; create it for the user that runs this process: mkdir -p -m 0750 %s", path, path)
	case err != nil:
		return nil, fmt.Errorf("opening directory %s as uid %d: %w", path, os.Geteuid(), cause(err))
	}
	const wait = 5 * time.Second // it is usually held for less than a millisecond
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("another process has held it for %s (see lslocks)", wait))
	defer cancel()
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return dir, nil
		}
		select {
		case <-ctx.Done():
			_ = dir.Close()
			return nil, fmt.Errorf("waiting for the lock on directory %s: %w: %w", path, err, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ownerOf returns the process that listens on the socket at path. live is false if there is none: nothing is at the
// path, or a stale socket. pid is 0 if the kernel does not show it. A file of another kind is an error that names the
// kind. ownerOf connects for an instant and does not block, whether or not the process accepts.
func ownerOf(path string) (pid int, live bool, err error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("checking %s: %w", path, cause(err))
	case info.Mode().Type() != fs.ModeSocket:
		kind := cmp.Or(map[fs.FileMode]string{
			0: "a regular file", fs.ModeDir: "a directory", fs.ModeSymlink: "a symbolic link", fs.ModeNamedPipe: "a named pipe",
		}[info.Mode().Type()], "a device")
		return 0, false, fmt.Errorf("%s is %s, not a socket; remove it or choose another path", path, kind)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return 0, false, nil
	case errors.Is(err, syscall.EAGAIN):
		// The backlog is full: the process hangs, but it still owns the socket.
		return 0, true, nil
	case err != nil:
		return 0, false, fmt.Errorf("connecting to socket %s to find its owner: %w", path, cause(err))
	}
	defer conn.Close()
	peer, err := credentials(conn)
	return int(peer.Pid), err == nil, err
}

// served returns whether a process has the socket at path open, or may have: another user's socket cannot be asked. That
// process does not notice: the kernel finds its socket, and refuses a connection of another type before it is queued
// (unix_find_bsd in net/unix/af_unix.c).
func served(path string) bool {
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	return errors.Is(err, unix.EPROTOTYPE) || errors.Is(err, fs.ErrPermission)
}

// credentials returns what the kernel noted about the process at the other end (SO_PEERCRED, unix(7)): of a client,
// when it called connect(2); of a server, when it called listen(2).
func credentials(conn *net.UnixConn) (peer unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return peer, err
	}
	found := &peer
	controlErr := raw.Control(func(fd uintptr) {
		found, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return *found, cmp.Or(controlErr, err)
}

// cause returns the errno in err. The text around it repeats the path, or shows one in /proc that does not help.
func cause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

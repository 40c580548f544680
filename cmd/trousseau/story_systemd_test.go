// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// units holds what systemd would run for a story: the socket of a socket unit, and the service.
type units struct {
	socket  *os.File
	service *exec.Cmd
}

// unit listen | start ARG... | queued | stop | kill acts as systemd with a socket unit. listen opens the socket,
// start passes it to a new trousseau, whose log is unit.log, and queued waits until a connection is pending.
func cmdUnit(ts *testscript.TestScript, neg bool, args []string) {
	u := &storyOf(ts).units
	switch args[0] {
	case "listen":
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: ts.Getenv("SOCKET"), Net: "unix"})
		ts.Check(err)
		ts.Defer(func() { l.Close() })
		u.socket, err = l.File()
		ts.Check(err)
		ts.Defer(func() { u.socket.Close() })
	case "start":
		log, err := os.OpenFile(ts.MkAbs("unit.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		ts.Check(err)
		defer log.Close()
		// LISTEN_PID is the PID of the process that the shell becomes.
		u.service = exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec trousseau "$@"`, "sh"}, args[1:]...)...)
		u.service.Dir = ts.MkAbs(".")
		u.service.Env = []string{"PATH=" + ts.Getenv("PATH")}
		u.service.ExtraFiles = []*os.File{u.socket}
		u.service.Stderr = log
		ts.Check(u.service.Start())
		ts.Defer(func() { _ = u.service.Process.Kill(); _ = u.service.Wait() })
	case "queued":
		raw, err := u.socket.SyscallConn()
		ts.Check(err)
		ts.Check(raw.Control(func(fd uintptr) {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(poll, int(patience/time.Millisecond)); n != 1 {
				ts.Fatalf("unit queued: %d, %v", n, err)
			}
		}))
	case "stop":
		ts.Check(u.service.Process.Signal(unix.SIGTERM))
		ts.Check(u.service.Wait())
	case "kill":
		ts.Check(u.service.Process.Kill())
		_ = u.service.Wait() // the error is the signal
	default:
		ts.Fatalf("unit: unknown verb %s", args[0])
	}
}

// SPDX-License-Identifier: Apache-2.0

package unixsock_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// socketUnit is a socket held by the test as by systemd, at path and with mode 0640.
func socketUnit(t *testing.T, path string) *os.File {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// passing passes files to a child as descriptors 3 and up (sd_listen_fds(3)). The child sets LISTEN_PID.
func passing(files ...*os.File) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		c.ExtraFiles = files
		c.Env = append(c.Env, "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES=trousseau.socket", "LISTEN_PIDFDID=1")
	}
}

func TestPassedSocket(t *testing.T) {
	path := socketPath(t)
	unit := socketUnit(t, path)
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}

	first := start(t, "passed", path, passing(unit))
	if got := first.said(t); got != "ok" {
		t.Fatal(got)
	}
	wantServer(t, path, "child")
	first.kill()

	// Without a process, connections wait.
	waiting := dial(t, path)
	next := start(t, "passed", path, passing(unit))
	if got := next.said(t); got != "ok" {
		t.Fatal(got)
	}
	if got := waiting.line(t); got != "child" {
		t.Errorf("the pending connection reaches %q", got)
	}
	waiting.echoes(t, 0)
	next.kill()

	// Close leaves the path alone.
	if got := start(t, "passed-closed", path, passing(unit)).said(t); got != "ok" {
		t.Fatal(got)
	}
	after, err := os.Lstat(path)
	if err != nil || !os.SameFile(before, after) || before.Mode() != after.Mode() {
		t.Errorf("the path was %v before and is %v, %v after", before, after, err)
	}
	wantOnly(t, path, "kms.sock")
	_ = dial(t, path)
}

// Only systemd can publish its socket again, and only when it is told to: the process says so, keeps its connections, and
// puts nothing at the path.
func TestPassedSocketIsGone(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lose  string // by the child
		stale bool   // another socket is at the path
	}{
		{"since the start", "yes", false},
		{"before", "no", false},
		{"before, and a stale one is there", "no", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := socketPath(t)
			unit := socketUnit(t, path)
			open := dial(t, path) // waits in the socket
			var left []string
			if tt.lose == "no" {
				must(t, os.Remove(path))
			}
			if tt.stale {
				must(t, bound(t, path).Close())
				left = []string{"kms.sock"}
			}
			c := start(t, "passed-lost", path, passing(unit), func(c *exec.Cmd) { c.Env = append(c.Env, "UNIXSOCK_TEST_LOSE="+tt.lose) })
			if got, want := c.said(t), "gone from its path, which belongs to systemd; stop this service and its socket unit, then start both"; got != want {
				t.Errorf("Published: %s, want %s", got, want)
			}
			if got := open.line(t); got != "child" {
				t.Errorf("the connection reaches %q", got)
			}
			open.echoes(t, 1500*time.Millisecond)
			wantOnly(t, path, left...)
		})
	}
}

func TestPassedSocketChecksUsers(t *testing.T) {
	path := socketPath(t)
	c := start(t, "passed", path, passing(socketUnit(t, path)), func(c *exec.Cmd) { c.Env = append(c.Env, "UNIXSOCK_TEST_ALLOW=others") })
	if got := c.said(t); got != "ok" {
		t.Fatal(got)
	}
	if got := start(t, "greet", path).said(t); got != errUnheard.Error() {
		t.Errorf("a user who is not allowed reads %q, want nothing", got)
	}
}

func TestPassedSocketRefused(t *testing.T) {
	path := socketPath(t)
	unit := socketUnit(t, path)
	other := filepath.Join(filepath.Dir(path), "other.sock")
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	tcpFile, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcpFile.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()

	for _, tt := range []struct {
		name   string
		path   string
		passed []*os.File
		want   string
	}{
		{"another path", other, []*os.File{unit},
			"systemd passed the unix socket " + path + ", but --listen-addr is the unix socket " + other + "; make ListenStream= and --listen-addr equal"},
		{"another kind", path, []*os.File{tcpFile},
			"systemd passed the tcp socket " + tcp.Addr().String() + ", but --listen-addr is the unix socket " + path},
		{"two", path, []*os.File{unit, tcpFile}, "systemd passed 2 sockets, only one is served; keep one ListenStream=" + path},
		{"no socket", path, []*os.File{null}, "systemd passed a file that is not a listening socket; set ListenStream=" + path},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := start(t, "passed", tt.path, passing(tt.passed...)).said(t); !strings.Contains(got, tt.want) {
				t.Errorf("the child says %q, want %q", got, tt.want)
			}
		})
	}
}

// Variables for another process are ignored: the socket is an open one of this process.
func TestPassedToAnotherProcess(t *testing.T) {
	path := socketPath(t)
	unit := socketUnit(t, path)
	got := start(t, "listen", path, passing(unit), func(c *exec.Cmd) { c.Env = append(c.Env, "LISTEN_PID=1") }).said(t)
	if want := "is served by process " + strconv.Itoa(os.Getpid()); !strings.Contains(got, want) {
		t.Errorf("the child says %q, want %q", got, want)
	}
}

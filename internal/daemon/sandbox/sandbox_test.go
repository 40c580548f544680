// SPDX-License-Identifier: Apache-2.0

package sandbox_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestDenyWriting checks what a process can do to files before and after writing is denied.
func TestDenyWriting(t *testing.T) {
	needLandlock(t)
	orders := [][]string{
		{"create", "etc/new"},
		{"append", "etc/config.yaml"},
		{"truncate", "etc/config.yaml"},
		{"rename", "etc/config.yaml", "etc/config.old"},
		{"rename", "etc/moved", "sock/moved"},
		{"remove", "etc/other"},
		{"mkdir", "etc/dir"},
		{"link", "config.yaml", "etc/link"},
		{"listen", "etc/kms.sock"},
		{"create", "sock/file"},
		{"append", "sock/kept"},
		{"mkdir", "sock/dir"},
		{"pipe", "sock/pipe"},
		{"link", "kept", "sock/link"},
		{"append", "/dev/null"},
		{"execute", "/proc/self/exe", "-test.run=^$"},
	}
	for _, denied := range []bool{false, true} {
		root := makeDir(t)
		for _, name := range []string{"etc/config.yaml", "etc/other", "etc/moved", "sock/kept"} {
			root.write(name, "content")
		}
		c := start(t, -1, setup{})
		if denied {
			if version, err := strconv.Atoi(c.do("deny-writing", root.at("sock"))); err != nil || version < 2 {
				t.Errorf("version of Landlock: got %d, %v, want 2 or more", version, err)
			}
		}
		for _, o := range orders {
			var args []string
			for _, arg := range o[1:] {
				if !filepath.IsAbs(arg) && !strings.HasPrefix(arg, "-") && (o[0] != "link" || strings.Contains(arg, "/")) {
					arg = root.at(arg)
				}
				args = append(args, arg)
			}
			if denied {
				c.denied(o[0], args...)
			} else {
				c.do(o[0], args...)
			}
		}
		if denied {
			c.do("read", root.at("etc/config.yaml"))
		}
	}
}

// TestReadingAfterDirectoryIsReplaced checks that reading is allowed everywhere, also in replaced directories.
func TestReadingAfterDirectoryIsReplaced(t *testing.T) {
	needLandlock(t)
	root := makeDir(t)
	root.write("etc/config.yaml", "one")
	root.write("sock/file", "")
	c := start(t, -1, setup{})
	c.do("deny-writing", root.at("sock"))
	root.must(os.RemoveAll(root.at("etc")))
	root.write("etc/config.yaml", "two")
	if got := c.do("read", root.at("etc/config.yaml")); got != "two" {
		t.Errorf("got %q, want %q", got, "two")
	}
	c.do("read", "/proc/self/status")
	c.do("read", "/etc/passwd")
}

// TestThreads checks that a restriction set by one thread applies to all threads, including older ones.
func TestThreads(t *testing.T) {
	needLandlock(t)
	root := makeDir(t)
	c := start(t, -1, setup{})
	c.do("threads", root.at("file"))
	c.do("deny-writing", root.path)
	c.denied("threads", root.at("file"))
}

// TestPublish binds, replaces and removes a socket inside the sandbox.
func TestPublish(t *testing.T) {
	needLandlock(t)
	root := makeDir(t)
	root.must(os.Mkdir(root.at("sock"), 0o755))
	socket := root.at("sock/kms.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	root.must(err)
	stale.SetUnlinkOnClose(false)
	root.must(stale.Close())

	enter := func() *child {
		c := start(t, -1, setup{})
		c.do("deny-writing", root.at("sock"))
		c.do("publish", socket)
		c.do("connect", socket)
		return c
	}
	first := enter()
	second := enter() // takes over
	first.do("close")
	second.do("connect", socket)
	first.do("connect", socket)
	second.do("close")
	left, err := os.ReadDir(root.at("sock"))
	if err != nil || len(left) > 0 {
		t.Errorf("in the socket's directory is left: got %v, %v, want nothing", left, err)
	}
}

// TestWithoutLandlock makes the kernel refuse Landlock queries in each possible way.
func TestWithoutLandlock(t *testing.T) {
	for errno, reason := range map[syscall.Errno]string{
		syscall.ENOSYS:     "this kernel has no Landlock",
		syscall.EOPNOTSUPP: "off; add landlock to the kernel parameter lsm=",
		syscall.EPERM:      "seccomp filter may forbid: operation not permitted",
	} {
		t.Run(errno.Error(), func(t *testing.T) {
			root := makeDir(t)
			root.write("c/file", "content")
			c := start(t, -1, setup{Landlock: errno})
			if got := c.try("deny-writing", root.path).Err; !strings.Contains(got, reason) {
				t.Errorf("got error %q, want it to say %q", got, reason)
			}
			c.do("read", root.at("c/file"))
			c.do("create", root.at("c/new"))
		})
	}
}

// TestDenyDumps checks access by other processes of the same user; as root it proves less.
func TestDenyDumps(t *testing.T) {
	uid := -1
	if os.Geteuid() == 0 {
		uid = nobody
	}
	c := start(t, uid, setup{})
	c.do("deny-dumps")
	if s := c.state(); s.Dumpable != 0 || s.Core.Cur != 0 || s.Core.Max != 0 {
		t.Errorf("got dumpable %d, core limit %+v, want 0 of each", s.Dumpable, s.Core)
	}
	info, err := os.Stat(procFile(c.pid, "mem"))
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("owner of /proc/PID/mem: got %d, want root", owner)
	}
}

// TestProcessMetrics reads a process's own metrics after all restrictions, as root and as a user who cannot read
// /proc/PID of other undumpable processes.
func TestProcessMetrics(t *testing.T) {
	needLandlock(t)
	want := []string{
		"process_cpu_seconds_total", "process_max_fds", "process_open_fds", "process_resident_memory_bytes",
		"process_start_time_seconds", "process_virtual_memory_bytes",
	}
	for who, uid := range map[string]int{"this user": -1, "nobody": nobody} {
		t.Run(who, func(t *testing.T) {
			if uid == nobody {
				needRoot(t)
			}
			root := makeDir(t)
			c := start(t, uid, setup{})
			c.do("deny-dumps")
			c.do("deny-writing", root.path)
			metrics := c.state().Metrics
			for _, name := range want {
				if metrics[name] <= 0 && name != "process_cpu_seconds_total" {
					t.Errorf("got %s %v, want more", name, metrics[name])
				}
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package sandbox_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGiveUpWriting says what a process can do to files, and what it can do no more once it has given up writing.
func TestGiveUpWriting(t *testing.T) {
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
	for _, given := range []bool{false, true} {
		root := own(t)
		for _, name := range []string{"etc/config.yaml", "etc/other", "etc/moved", "sock/kept"} {
			root.write(name, "content")
		}
		c := start(t, -1, setup{SocketDir: root.at("sock")})
		if given {
			c.do("give-up-writing")
		}
		for _, o := range orders {
			var args []string
			for _, arg := range o[1:] {
				if !filepath.IsAbs(arg) && !strings.HasPrefix(arg, "-") && (o[0] != "link" || strings.Contains(arg, "/")) {
					arg = root.at(arg)
				}
				args = append(args, arg)
			}
			if given {
				c.denied(o[0], args...)
			} else {
				c.do(o[0], args...)
			}
		}
		if given {
			c.do("read", root.at("etc/config.yaml"))
			if log := c.do("log"); lines(log, "info", root.at("sock"), "landlock_version") != 1 {
				t.Errorf("got log:\n%swant one line that says where can be written", log)
			}
		}
	}
}

// TestGiveUpReading says what can be read in the end. Names that do not begin with / are in the test's directory.
func TestGiveUpReading(t *testing.T) {
	needLandlock(t)
	root := systems(t)
	for _, name := range []string{
		"etc/config.yaml", "etc/volume/token", "tls/ca.pem", "tls/other.pem", "real/token", "linked/sibling",
		"extra/deep/file", "single", "secret/file", "sock/file",
	} {
		root.write(name, "content of "+name)
	}
	root.link("../real/token", "linked/token")
	root.link("../secret/file", "etc/out")
	at := func(name string) string {
		if filepath.IsAbs(name) {
			return name
		}
		return root.at(name)
	}
	// The system's own would make /etc readable, where they are not mounted.
	root.write("resolver/hosts", "")
	c := start(t, -1, setup{
		SocketDir: root.at("sock"),
		Paths:     []string{root.at("extra"), root.at("single"), root.at("absent")},
		Resolver:  []string{root.at("resolver/hosts")},
	})
	c.do("give-up-reading", root.at("etc/config.yaml"), root.at("tls/ca.pem"), root.at("linked/token"))
	c.do("give-up-reading", root.at("secret/file")) // comes too late

	for _, name := range []string{
		"etc/config.yaml", "etc/volume/token", "tls/ca.pem", "tls/other.pem", "real/token", "linked/token", "linked/sibling",
		"extra/deep/file", "single", "/proc/self/limits", "/proc/stat",
	} {
		c.do("read", at(name))
	}
	for _, name := range []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem",
	} {
		if _, err := os.ReadFile(name); err == nil { // else this system has none
			c.do("read", name)
		}
	}
	for _, dir := range []string{"etc", "tls", "extra", "sock", "/proc/self/fd", "/proc/self/task"} {
		c.do("list", at(dir))
	}

	for _, name := range []string{"secret/file", "sock/file", "etc/out", "/etc/passwd", "/proc/cpuinfo", "/proc/1/status", "/proc/self/exe"} {
		c.denied("read", at(name))
	}
	for _, dir := range []string{"secret", "/", "/etc", "/proc", "/proc/1"} {
		c.denied("list", at(dir))
	}

	log := c.do("log")
	if lines(log, "info", "can read nothing but", root.at("etc"), root.at("extra"), "landlock_version") != 1 {
		t.Errorf("got log:\n%swant one line that lists what can be read", log)
	}
	if lines(log, "warn", root.at("absent")) != 1 {
		t.Errorf("got log:\n%swant one line about the path that does not exist", log)
	}
}

// TestExplain is about errors of files, which only become longer if it was the sandbox.
func TestExplain(t *testing.T) {
	needLandlock(t)
	root := systems(t)
	root.write("etc/config.yaml", "content")
	root.write("secret/file", "content")
	root.write("etc/mode000", "content")
	root.link("../secret/file", "etc/link")
	root.must(os.Chmod(root.at("etc/mode000"), 0))
	uid := -1
	if os.Geteuid() == 0 {
		uid = nobody // whom the mode stops
	}
	for _, tc := range []struct {
		name, file string
		before     string // the error's text until reading is given up
		after      string
	}{
		{"outside", "secret/file", "", "--sandbox-path=" + root.at("secret") + " "},
		{"link to outside", "etc/link", "", "--sandbox-path=" + root.at("secret") + " "},
		{"inside", "etc/config.yaml", "", ""},
		{"not there", "secret/absent", "no such file or directory", "no such file or directory"},
		{"forbidden by its mode", "etc/mode000", "permission denied", "permission denied"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := start(t, uid, setup{SocketDir: root.at("etc")})
			check := func(want string) {
				t.Helper()
				got := c.try("read", root.at(tc.file)).Err
				if !strings.Contains(got, want) || (want == "") != (got == "") {
					t.Errorf("got error %q, want %q", got, want)
				}
				if strings.Contains(got, "sandbox-path") != strings.Contains(want, "sandbox-path") {
					t.Errorf("got error %q, which mentions the sandbox, or does not", got)
				}
			}
			check(tc.before)
			c.do("give-up-reading", root.at("etc/config.yaml"))
			check(tc.after)
		})
	}
}

// TestThreads has every thread of the process give up what one does, also those that were there before.
func TestThreads(t *testing.T) {
	needLandlock(t)
	root := own(t)
	root.write("secret/file", "content")
	root.write("sub/etc/config.yaml", "content")
	c := start(t, -1, setup{SocketDir: root.path})
	c.do("threads", root.at("secret/file"))
	c.do("give-up-reading", root.at("sub/etc/config.yaml"))
	c.denied("threads", root.at("secret/file"))
}

// TestPublish takes the socket through its life inside the sandbox.
func TestPublish(t *testing.T) {
	needLandlock(t)
	root := systems(t) // where nothing else makes the directory readable
	root.write("etc/config.yaml", "content")
	root.must(os.Mkdir(root.at("sock"), 0o755))
	socket := root.at("sock/kms.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	root.must(err)
	stale.SetUnlinkOnClose(false)
	root.must(stale.Close())

	enter := func() *child {
		c := start(t, -1, setup{SocketDir: root.at("sock")})
		c.do("give-up-writing")
		c.do("give-up-reading", root.at("etc/config.yaml"))
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

// TestReplaced is about directories that are not the ones they were, in a place of ours.
func TestReplaced(t *testing.T) {
	needLandlock(t)
	for _, tc := range []struct {
		name    string
		layout  func(root dir)
		replace func(root dir)
	}{
		{
			"directory removed and made anew",
			func(root dir) { root.write("etc/config.yaml", "one") },
			func(root dir) { root.remove("etc"); root.write("etc/config.yaml", "two") },
		},
		{
			"directory replaced by rename",
			func(root dir) { root.write("etc/config.yaml", "one"); root.write("new/config.yaml", "two") },
			func(root dir) { root.rename("etc", "old"); root.rename("new", "etc") },
		},
		{
			"directories exchanged",
			func(root dir) { root.write("etc/config.yaml", "one"); root.write("new/config.yaml", "two") },
			func(root dir) {
				root.must(unix.Renameat2(unix.AT_FDCWD, root.at("etc"), unix.AT_FDCWD, root.at("new"), unix.RENAME_EXCHANGE))
			},
		},
		{
			"directory is a link and re-pointed",
			func(root dir) {
				root.write("v1/config.yaml", "one")
				root.write("v2/config.yaml", "two")
				root.link("v1", "etc")
			},
			func(root dir) { root.link("v2", "etc") },
		},
		{
			"target of a link renamed over",
			func(root dir) {
				root.write("elsewhere/real.yaml", "one")
				root.write("elsewhere/new.yaml", "two")
				root.write("etc/sibling", "")
				root.link("../elsewhere/real.yaml", "etc/config.yaml")
			},
			func(root dir) { root.rename("elsewhere/new.yaml", "elsewhere/real.yaml") },
		},
		{
			"kubelet publishes",
			func(root dir) {
				root.write("etc/..1/config.yaml", "one")
				root.link("..1", "etc/..data")
				root.link("..data/config.yaml", "etc/config.yaml")
			},
			func(root dir) {
				root.write("etc/..2/config.yaml", "two")
				root.link("..2", "etc/..data")
				root.remove("etc/..1")
			},
		},
		{
			"link to what was not there",
			func(root dir) {
				root.write("etc/sibling", "")
				root.must(os.Mkdir(root.at("run"), 0o755))
				root.link("../run/config.yaml", "etc/config.yaml")
			},
			func(root dir) { root.write("run/config.yaml", "two") },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := own(t)
			tc.layout(root)
			c := start(t, -1, setup{SocketDir: root.path})
			c.do("give-up-reading", root.at("etc/config.yaml"))
			tc.replace(root)
			if got := c.do("read", root.at("etc/config.yaml")); got != "two" {
				t.Errorf("got %q, want %q", got, "two")
			}
		})
	}
}

// TestReplacedInSystemDirectory is about one that is not followed, unless told to.
func TestReplacedInSystemDirectory(t *testing.T) {
	needLandlock(t)
	for _, told := range []bool{false, true} {
		root := systems(t)
		root.write("etc/config.yaml", "one")
		s := setup{SocketDir: root.at("etc")}
		if told {
			s.Paths = []string{root.path}
		}
		c := start(t, -1, s)
		c.do("give-up-reading", root.at("etc/config.yaml"))
		root.write("etc/new", "two")
		root.rename("etc/new", "etc/config.yaml")
		c.do("read", root.at("etc/config.yaml"))
		root.remove("etc")
		if r := c.try("read", root.at("etc/config.yaml")); !strings.Contains(r.Err, "no such file") {
			t.Errorf("without the directory: got error %q, want that there is none", r.Err)
		}
		root.write("etc/config.yaml", "three")
		if told {
			c.do("read", root.at("etc/config.yaml"))
			continue
		}
		if got, want := c.denied("read", root.at("etc/config.yaml")), "--sandbox-path="+root.path+" "; !strings.Contains(got, want) {
			t.Errorf("got error %q, want it to say %q", got, want)
		}
	}
}

// TestResolver follows the resolver's files, whatever stands in their place later.
func TestResolver(t *testing.T) {
	needLandlock(t)
	root := systems(t)
	root.write("hosts", "one")
	root.write("run/resolve/resolv.conf", "one")
	root.link("run/resolve/resolv.conf", "resolv.conf")
	root.write("conf/config.yaml", "")
	s := setup{SocketDir: root.at("conf"), Resolver: []string{root.at("hosts"), root.at("resolv.conf"), root.at("absent")}}
	c := start(t, -1, s)
	c.do("give-up-reading", root.at("conf/config.yaml"))
	root.write("run/resolve/new", "two")
	root.rename("run/resolve/new", "run/resolve/resolv.conf")
	c.do("read", root.at("resolv.conf"))
	root.write("new", "two")
	root.rename("new", "hosts")
	c.do("read", root.at("hosts"))
	root.write("absent", "later")
	c.do("read", root.at("absent"))
}

// TestWithoutLandlock has the kernel refuse to say anything about Landlock, in each way that it can.
func TestWithoutLandlock(t *testing.T) {
	for errno, reason := range map[syscall.Errno]string{
		syscall.ENOSYS:     "this kernel has no Landlock",
		syscall.EOPNOTSUPP: "switched off; add landlock to its parameter lsm=",
		syscall.EPERM:      "seccomp filter may forbid: operation not permitted",
	} {
		t.Run(errno.Error(), func(t *testing.T) {
			root := own(t)
			root.write("a/b/config.yaml", "content")
			root.write("c/file", "content")
			c := start(t, -1, setup{SocketDir: root.at("a"), Landlock: errno})
			c.do("give-up-writing")
			c.do("give-up-reading", root.at("a/b/config.yaml"))
			c.do("read", root.at("c/file"))
			c.do("create", root.at("c/new"))
			log := c.do("log")
			if strings.Count(log, "\n") != 1 || lines(log, "warn", "there is no sandbox", reason) != 1 {
				t.Errorf("got log:\n%swant one warning that says %q", log, reason)
			}
		})
	}
}

// TestZone is about files that the time package reads when it first needs them, which is after reading was given up.
func TestZone(t *testing.T) {
	needLandlock(t)
	const name = "/usr/share/zoneinfo/Asia/Tokyo"
	if _, err := os.Stat(name); err != nil {
		t.Skip(err)
	}
	root := own(t)
	c := start(t, -1, setup{SocketDir: root.path}, "TZ=Asia/Tokyo")
	c.do("give-up-reading", root.at("config.yaml"))
	c.denied("read", name)
	if got := c.do("zone"); got != "JST" {
		t.Errorf("time zone: got %s, want JST", got)
	}
}

// TestNoDumps is about other processes of the same user; as root it shows less than it does as anybody else.
func TestNoDumps(t *testing.T) {
	uid := -1
	if os.Geteuid() == 0 {
		uid = nobody
	}
	c := start(t, uid, setup{})
	c.do("no-dumps")
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

// TestProcessMetrics has a process that has given up all look at itself, as root and as somebody whom the kernel does
// not let read /proc/PID of other undumpable processes.
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
			root := own(t)
			c := start(t, uid, setup{SocketDir: root.path})
			c.do("no-dumps")
			c.do("give-up-writing")
			c.do("give-up-reading", root.at("config.yaml"))
			check := func(when string) {
				t.Helper()
				metrics := c.state().Metrics
				for _, name := range want {
					if metrics[name] <= 0 && name != "process_cpu_seconds_total" {
						t.Errorf("%s: got %s %v, want more", when, name, metrics[name])
					}
				}
			}
			check("at first")
			if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
				t.Logf("cannot make the kernel forget the names in /proc: %v", err)
				return
			}
			check("with the names in /proc forgotten")
		})
	}
}

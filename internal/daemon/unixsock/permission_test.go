// SPDX-License-Identifier: Apache-2.0

package unixsock_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
)

func TestModeAndGroup(t *testing.T) {
	own := strconv.Itoa(os.Getgid())
	group, err := user.LookupGroupId(own)
	if err != nil {
		t.Fatal(err)
	}
	other := os.Getgid()
	if os.Geteuid() == 0 {
		other = 54321
	}
	for _, tt := range []struct {
		name  string
		mode  fs.FileMode
		group string
		want  fs.FileMode
		gid   int
	}{
		{"defaults", 0, "", 0o600, os.Getegid()},
		{"group by number", 0o660, strconv.Itoa(other), 0o660, other},
		{"group by name", 0o620, group.Name, 0o620, os.Getgid()},
		{"more than the umask leaves", 0o777, own, 0o777, os.Getgid()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := socketPath(t)
			listen(t, unixsock.Options{Path: path, Mode: tt.mode, Group: tt.group}, "x")
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := info.Mode(), fs.ModeSocket|tt.want; got != want {
				t.Errorf("mode %v, want %v", got, want)
			}
			if got := int(info.Sys().(*syscall.Stat_t).Gid); got != tt.gid {
				t.Errorf("group %d, want %d", got, tt.gid)
			}
		})
	}
}

// Neither the socket nor its temporary file ever has a wider mode than wanted, and the path always exists.
func TestModeIsNeverWrong(t *testing.T) {
	path := socketPath(t)
	replace := func() <-chan string {
		c, said := start(t, "replace", path), make(chan string, 1)
		go func() { said <- c.said(t) }()
		return said
	}
	said, more := replace(), 10
	sockets, temporaries := 0, 0
	for {
		select {
		case got := <-said:
			if got != "ok" {
				t.Fatal(got)
			}
			if sockets > 0 && temporaries > 0 {
				return
			}
			if more--; more == 0 {
				t.Fatalf("saw %d sockets and %d temporary ones: the test proves nothing", sockets, temporaries)
			}
			said = replace() // repeat: this process was not scheduled during that run
		default:
		}
		info, err := os.Lstat(path)
		switch {
		case err == nil:
			sockets++
			if got, want := info.Mode(), fs.ModeSocket|0o640; got != want {
				t.Fatalf("the path was seen with mode %v, want %v", got, want)
			}
		case !errors.Is(err, fs.ErrNotExist):
			t.Fatal(err)
		case sockets > 0:
			t.Fatal("the path was seen empty during a takeover")
		}
		if info, err := os.Lstat(filepath.Join(filepath.Dir(path), ".unixsock")); err == nil {
			temporaries++
			if got := info.Mode(); got != fs.ModeSocket|0o600 && got != fs.ModeSocket|0o640 {
				t.Fatalf("the temporary socket was seen with mode %v", got)
			}
		}
	}
}

func TestListenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, o *unixsock.Options) error
		want    string
	}{
		{"regular file", func(_ *testing.T, o *unixsock.Options) error {
			return os.WriteFile(o.Path, []byte("keep me"), 0o600)
		}, "kms.sock is a regular file, not a socket; remove it or choose another path"},
		{"directory", func(_ *testing.T, o *unixsock.Options) error {
			return os.Mkdir(o.Path, 0o700)
		}, "kms.sock is a directory, not a socket"},
		{"symbolic link", func(_ *testing.T, o *unixsock.Options) error {
			return os.Symlink("elsewhere", o.Path)
		}, "kms.sock is a symbolic link, not a socket"},
		{"named pipe", func(_ *testing.T, o *unixsock.Options) error {
			return syscall.Mkfifo(o.Path, 0o600)
		}, "kms.sock is a named pipe, not a socket"},
		{"missing directory", func(_ *testing.T, o *unixsock.Options) error {
			o.Path = filepath.Join(filepath.Dir(o.Path), "missing", "kms.sock")
			return nil
		}, "missing does not exist; create it for the user that runs this process: mkdir -p -m 0750 /"},
		{"file for a directory", func(_ *testing.T, o *unixsock.Options) error {
			dir := filepath.Join(filepath.Dir(o.Path), "file")
			o.Path = filepath.Join(dir, "kms.sock")
			return os.WriteFile(dir, nil, 0o600)
		}, "/file as uid " + strconv.Itoa(os.Geteuid()) + ": not a directory"},
		{"path too long", func(_ *testing.T, o *unixsock.Options) error {
			o.Path += strings.Repeat("x", 108)
			return nil
		}, "a unix socket's path ends at 107"},
		{"unknown group", func(_ *testing.T, o *unixsock.Options) error {
			o.Group = "no-such-group"
			return nil
		}, `socket group "no-such-group": no such group on this machine; create it or give its number`},
		{"group -1", func(_ *testing.T, o *unixsock.Options) error {
			o.Group = "4294967295"
			return nil
		}, `socket group "4294967295": no such group`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := unixsock.Options{Path: socketPath(t)}
			dir := filepath.Dir(o.Path)
			if err := tt.prepare(t, &o); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}

			o.Takeover = true // makes no difference
			l, err := unixsock.Listen(t.Context(), o)
			if err == nil {
				_ = l.Close()
				t.Fatal("Listen succeeded")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want it to contain %q", err, tt.want)
			}
			after, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(after) != len(before) {
				t.Errorf("the directory held %v before and %v after", before, after)
			}
		})
	}
}

// A child runs as an ordinary user, because root would not be refused.
func TestListenAsOrdinaryUser(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "kms.sock")
	ordinary := func(c *exec.Cmd) {
		if os.Geteuid() == 0 {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
	}

	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	got := start(t, "listen", path, ordinary).said(t)
	for _, want := range []string{"directory " + dir + " is not writable for uid ", "permission denied; give it to that user or choose another path"} {
		if !strings.Contains(got, want) {
			t.Errorf("in a directory that is not writable: %q, want %q in it", got, want)
		}
	}

	if err := os.Chmod(dir, 0o1777); err != nil {
		t.Fatal(err)
	}
	got = start(t, "listen", path, ordinary, func(c *exec.Cmd) { c.Env = append(c.Env, "UNIXSOCK_TEST_GROUP=0") }).said(t)
	if want := "and group 0 as uid "; !strings.Contains(got, want) || !strings.Contains(got, "must be a member of that group") {
		t.Errorf("with a group of another user: %q, want %q in it", got, want)
	}
	wantOnly(t, path)
}

func TestListenWarns(t *testing.T) {
	for _, tt := range []struct {
		name    string
		dir     fs.FileMode
		mode    fs.FileMode
		warning string
	}{
		{"closed", 0o750, 0o660, ""},
		{"directory for all", 0o777, 0o600, "every user of this machine can replace the socket"},
		{"sticky directory", 0o777 | fs.ModeSticky, 0o600, ""},
		{"socket for all", 0o750, 0o666, "every user of this machine can connect to the socket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := socketPath(t)
			if err := os.Chmod(filepath.Dir(path), tt.dir); err != nil {
				t.Fatal(err)
			}
			core, logs := observer.New(zap.WarnLevel)
			listen(t, unixsock.Options{Path: path, Mode: tt.mode, Logger: zap.New(core)}, "x")

			got := ""
			for _, e := range logs.All() {
				got += e.Message
			}
			if !strings.HasPrefix(got, tt.warning) || (tt.warning == "") != (got == "") {
				t.Errorf("warned %q, want %q", got, tt.warning)
			}
		})
	}
}

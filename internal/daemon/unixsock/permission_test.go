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
			publish(t, unixsock.Options{Path: path, Mode: tt.mode, Group: tt.group}, false, "x")
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

// Nobody ever sees the socket with another mode than the wanted one, or a temporary directory open to others.
func TestModeIsNeverWrong(t *testing.T) {
	path := socketPath(t)
	republish := func() <-chan string {
		c, said := start(t, "republish", path), make(chan string, 1)
		go func() { said <- c.said(t) }()
		return said
	}
	said, more := republish(), 10
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
				t.Fatalf("saw %d sockets and %d temporary directories: nothing was tested", sockets, temporaries)
			}
			said = republish() // that one ran while this process did not
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
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil && e.Name() != filepath.Base(path) {
				temporaries++
				if got, want := info.Mode(), fs.ModeDir|0o700; got != want {
					t.Fatalf("%s was seen with mode %v, want %v", e.Name(), got, want)
				}
			}
		}
	}
}

func TestBindRefuses(t *testing.T) {
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
		}, "file is not a directory; choose another path for the socket"},
		{"unparsed address", func(_ *testing.T, o *unixsock.Options) error {
			o.Path = "unix://" + o.Path
			return nil
		}, "the path is not absolute"},
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
		{"mode with more than permissions", func(_ *testing.T, o *unixsock.Options) error {
			o.Mode = fs.ModeSetgid | 0o600
			return nil
		}, "only permission bits can be set"},
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

			p, err := unixsock.Bind(t.Context(), o)
			if err == nil {
				_ = p.Close()
				t.Fatal("Bind succeeded")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want one with %q", err, tt.want)
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

// What appears at the path between Bind and Publish is looked at again.
func TestPublishLooksAgain(t *testing.T) {
	t.Run("file at the path", func(t *testing.T) {
		path := socketPath(t)
		p := bind(t, unixsock.Options{Path: path})
		if err := os.WriteFile(path, []byte("keep me"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Publish(t.Context(), true); err == nil || !strings.Contains(err.Error(), "is a regular file, not a socket") {
			t.Errorf("Publish(true): %v, want the file refused", err)
		}
		if got, err := os.ReadFile(path); string(got) != "keep me" {
			t.Errorf("the file now holds %q, %v", got, err)
		}
	})
	t.Run("directory replaced", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "run")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		p := bind(t, unixsock.Options{Path: filepath.Join(dir, "kms.sock")})
		if err := os.Rename(dir, dir+".old"); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Publish(t.Context(), false); err == nil || !strings.Contains(err.Error(), "was replaced by another one since the socket was bound") {
			t.Errorf("Publish: %v, want the new directory noticed", err)
		}
	})
}

// An ordinary user gets told what is missing: root would not be refused, so a child plays that user.
func TestBindAsOrdinaryUser(t *testing.T) {
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
	got := start(t, "bind", path, ordinary).said(t)
	for _, want := range []string{"directory " + dir + " is not writable for uid ", "permission denied; give it to that user or choose another path"} {
		if !strings.Contains(got, want) {
			t.Errorf("in a directory that is not writable: %q, want %q in it", got, want)
		}
	}

	if err := os.Chmod(dir, 0o1777); err != nil {
		t.Fatal(err)
	}
	got = start(t, "bind", path, ordinary, func(c *exec.Cmd) { c.Env = append(c.Env, "UNIXSOCK_TEST_GROUP=0") }).said(t)
	if want := "to group 0 as uid "; !strings.Contains(got, want) || !strings.Contains(got, "must be a member of that group") {
		t.Errorf("with a group of others: %q, want %q in it", got, want)
	}
	wantOnly(t, path)
}

func TestBindWarnsOfOpenDoors(t *testing.T) {
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
			bind(t, unixsock.Options{Path: path, Mode: tt.mode, Logger: zap.New(core)})

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

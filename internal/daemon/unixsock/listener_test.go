// SPDX-License-Identifier: Apache-2.0

package unixsock_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
)

func TestTakeover(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	old := listen(t, unixsock.Options{Path: path}, "old")
	before := dial(t, path)
	if got := before.line(t); got != "old" {
		t.Fatalf("the first connection reaches %q", got)
	}
	before.echoes(t, 1500*time.Millisecond)
	select {
	case <-old.Replaced():
		t.Fatal("Replaced before anything happened")
	default:
	}

	successor := listen(t, unixsock.Options{Path: path, Takeover: true}, "new")
	wantServer(t, path, "new")
	select {
	case <-old.Replaced():
	case <-time.After(10 * time.Second):
		t.Fatal("the old listener never noticed its successor")
	}
	if err := old.Close(); err != nil {
		t.Errorf("closing the old listener: %v", err)
	}
	wantServer(t, path, "new")
	wantOnly(t, path, "kms.sock")

	before.echoes(t, 0)

	if err := successor.Close(); err != nil {
		t.Errorf("closing the new listener: %v", err)
	}
	wantOnly(t, path)
	select {
	case <-successor.Replaced():
		t.Error("closing a listener counts as a replacement")
	default:
	}
}

func TestTakeoverFromAnotherProcess(t *testing.T) {
	path := socketPath(t)
	other := start(t, "listen", path)
	if got := other.said(t); got != "ok" {
		t.Fatal(got)
	}
	before := dial(t, path)
	if got := before.line(t); got != "child" {
		t.Fatalf("the first connection reaches %q", got)
	}

	listen(t, unixsock.Options{Path: path, Takeover: true}, "parent")
	wantServer(t, path, "parent")
	before.echoes(t, 0)
	other.kill()
	wantServer(t, path, "parent")
}

// missing are ways in which the path can lose the socket.
var missing = map[string]func(t *testing.T, path string) (mend func()){
	"removed": func(t *testing.T, path string) func() {
		must(t, os.Remove(path))
		return nil
	},
	"directory created again": func(t *testing.T, path string) func() {
		must(t, os.RemoveAll(filepath.Dir(path)), os.Mkdir(filepath.Dir(path), 0o700))
		return nil
	},
	"dead socket": func(t *testing.T, path string) func() {
		must(t, os.Remove(path), bound(t, path).Close())
		return nil
	},
	"no directory": func(t *testing.T, path string) func() {
		must(t, os.RemoveAll(filepath.Dir(path)))
		return func() { must(t, os.Mkdir(filepath.Dir(path), 0o700)) }
	},
	"a directory": func(t *testing.T, path string) func() {
		must(t, os.Remove(path), os.Mkdir(path, 0o700))
		return func() { must(t, os.Remove(path)) }
	},
	"a file": func(t *testing.T, path string) func() {
		must(t, os.Remove(path), os.WriteFile(path, []byte("keep me"), 0o600))
		return func() { must(t, os.Remove(path)) }
	},
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// bound is another process's socket, at a path that stays when it is closed.
func bound(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// A path that is free again gets a new socket within a second, and accepted connections stay open.
func TestPublishedAgain(t *testing.T) {
	t.Parallel()
	for name, lose := range missing {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "run", "kms.sock")
			must(t, os.Mkdir(filepath.Dir(path), 0o700))
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.WarnLevel)
				l, err := unixsock.Listen(t.Context(), unixsock.Options{Path: path, Mode: 0o640, Logger: zap.New(core)})
				must(t, err)
				defer l.Close()
				before, accepted := connect(t, l, path)
				time.Sleep(1500 * time.Millisecond)
				wantPublished(t, l, "")

				want := []string{"socket was gone from its path; published again"}
				if mend := lose(t, path); mend != nil {
					want = slices.Insert(want, 0, "socket is gone from its path")
					time.Sleep(9 * time.Second) // less than the time limit
					wantPublished(t, l, "gone from its path, and cannot be published again: ")
					mend()
				}
				time.Sleep(time.Second)
				wantPublished(t, l, "")
				wantOnly(t, path, "kms.sock")
				info, err := os.Lstat(path)
				must(t, err)
				if got, want := info.Mode(), fs.ModeSocket|0o640; got != want {
					t.Errorf("mode %v, want %v", got, want)
				}
				connect(t, l, path)
				wantSame(t, before, accepted)
				select {
				case <-l.Replaced():
					t.Error("Replaced, although there is no successor")
				default:
				}
				var got []string
				for _, e := range logs.All() {
					got = append(got, e.Message)
				}
				if !slices.Equal(got, want) {
					t.Errorf("logged %q, want %q", got, want)
				}
				must(t, l.Close())
				wantOnly(t, path)
			})
		})
	}
}

// A call of Accept that waits at the old socket continues at the new one.
func TestAcceptAcrossSockets(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	l := listen(t, unixsock.Options{Path: path}, "here")
	before := dial(t, path)
	before.line(t)
	for range 2 {
		must(t, os.Remove(path))
		eventually(t, "a new socket", func() bool { _, err := os.Lstat(path); return err == nil })
		wantServer(t, path, "here")
	}
	before.echoes(t, 0)
	must(t, l.Close())
}

// A path that stays blocked ends Accept, so that the process can end too.
func TestGivesUp(t *testing.T) {
	t.Parallel()
	for name, reason := range map[string]string{
		"no directory": "run does not exist; create it for the user that runs this process: mkdir -p -m 0750 ",
		"a directory":  "kms.sock is a directory, not a socket; remove it or choose another path",
		"a file":       "kms.sock is a regular file, not a socket; remove it or choose another path",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "run", "kms.sock")
			must(t, os.Mkdir(filepath.Dir(path), 0o700))
			synctest.Test(t, func(t *testing.T) {
				l, err := unixsock.Listen(t.Context(), unixsock.Options{Path: path})
				must(t, err)
				defer l.Close()
				missing[name](t, path)
				time.Sleep(12 * time.Second)
				waiting, err := l.Dial(t.Context()) // for Accept, if it does not give up
				must(t, err)
				defer waiting.Close()
				_, err = l.Accept()
				for _, want := range []string{"gone from its path, and cannot be published again: ", reason, "; gave up after 10s, a restart tries again"} {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("Accept: %v, want %q in it", err, want)
					}
				}
				if data, err := os.ReadFile(path); name == "a file" && string(data) != "keep me" {
					t.Errorf("the file holds %q, %v; want it unchanged", data, err)
				}
			})
		})
	}
}

// A live process that gets to the path first keeps it.
func TestReplacedWhileMissing(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	synctest.Test(t, func(t *testing.T) {
		l, err := unixsock.Listen(t.Context(), unixsock.Options{Path: path})
		must(t, err)
		defer l.Close()
		missing["a directory"](t, path)
		time.Sleep(5500 * time.Millisecond)
		must(t, os.Remove(path))
		other := bound(t, path)
		time.Sleep(time.Second)
		synctest.Wait()
		select {
		case <-l.Replaced():
		default:
			t.Error("not Replaced, although another process serves the socket")
		}
		must(t, l.Close())
		connect(t, other, path)
	})
}

func TestAwait(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, path string, other *net.UnixListener)
		want time.Duration // 0: not at all
	}{
		{"a live process", func(*testing.T, string, *net.UnixListener) {}, 0},
		{"it has ended", func(t *testing.T, _ string, other *net.UnixListener) { must(t, other.Close()) }, time.Second},
		{"it has removed its socket", func(t *testing.T, path string, other *net.UnixListener) { must(t, other.Close(), os.Remove(path)) }, 3 * time.Second},
		{"it publishes its socket again", func(t *testing.T, path string, _ *net.UnixListener) {
			must(t, os.Remove(path))
			time.Sleep(2 * time.Second)
			bound(t, path)
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := socketPath(t)
			other := bound(t, path)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var at time.Time
				var l *unixsock.Listener
				var err error
				done := make(chan struct{})
				go func() {
					defer close(done)
					l, err = unixsock.Await(ctx, unixsock.Options{Path: path, Takeover: true})
					at = time.Now()
				}()
				time.Sleep(time.Minute + time.Millisecond)
				began := time.Now()
				tt.end(t, path, other)
				time.Sleep(time.Minute)
				cancel()
				<-done
				if tt.want == 0 {
					if pending(t, other) {
						t.Error("Await has connected to the live process, want it not to be noticed")
					}
					if !errors.Is(err, context.Canceled) {
						t.Errorf("Await: %v, %v, want it to wait", l, err)
					}
					return
				}
				must(t, err)
				defer l.Close()
				if took := at.Sub(began); took > tt.want || took < tt.want-time.Second {
					t.Errorf("Await took %s, want about %s", took, tt.want)
				}
				connect(t, l, path)
			})
		})
	}
}

// A process reaches its own socket whatever is at the path, and although its user may not connect.
func TestDial(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	l, err := unixsock.Listen(t.Context(), unixsock.Options{Path: path, AllowUIDs: []uint32{uint32(os.Geteuid()) + 1}})
	must(t, err)
	defer time.AfterFunc(10*time.Second, func() { _ = l.Close() }).Stop() // ends a call of Accept that waits in vain
	for _, lose := range []func(){
		func() {},
		func() { bound(t, path+".2"); must(t, os.Rename(path+".2", path)) },
	} {
		lose()
		client, err := l.Dial(t.Context())
		must(t, err)
		defer client.Close()
		server, err := l.Accept()
		must(t, err)
		defer server.Close()
		wantSame(t, client, server)
	}
	must(t, l.Close())
	if _, err := l.Dial(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Dial after Close: %v, want %v", err, fs.ErrNotExist)
	}
}

func TestDialWithoutPermission(t *testing.T) {
	needsRoot(t) // to become an ordinary user, whom the mode concerns
	path := publicPath(t)
	must(t, os.Chown(filepath.Dir(path), nobody, nobody))
	if got := start(t, "dial", path, asUser(nobody)).said(t); got != fs.ErrPermission.Error() {
		t.Errorf("a user who may not connect to the own socket: %s, want %v", got, fs.ErrPermission)
	}
}

// connect returns both ends of a new connection to path, which l accepts.
func connect(t *testing.T, l net.Listener, path string) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial("unix", path)
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	server, err = l.Accept()
	must(t, err)
	t.Cleanup(func() { _ = server.Close() })
	wantSame(t, client, server)
	return client, server
}

// pending returns whether a connection waits to be accepted.
func pending(t *testing.T, l *net.UnixListener) bool {
	t.Helper()
	raw, err := l.SyscallConn()
	must(t, err)
	poll := []unix.PollFd{{Events: unix.POLLIN}}
	must(t, raw.Control(func(fd uintptr) {
		poll[0].Fd = int32(fd)
		_, err = unix.Poll(poll, 0)
	}), err)
	return poll[0].Revents != 0
}

// wantSame checks that these are the ends of one open connection.
func wantSame(t *testing.T, client, server net.Conn) {
	t.Helper()
	_, err := io.WriteString(client, "hello")
	must(t, err)
	got := make([]byte, 5)
	if _, err := io.ReadFull(server, got); string(got) != "hello" {
		t.Errorf("the server reads %q, %v", got, err)
	}
}

func wantPublished(t *testing.T, l *unixsock.Listener, problem string) {
	t.Helper()
	synctest.Wait()
	if err := l.Published(); (err == nil) != (problem == "") || err != nil && !strings.HasPrefix(err.Error(), problem) {
		t.Errorf("Published: %v, want %q", err, problem)
	}
}

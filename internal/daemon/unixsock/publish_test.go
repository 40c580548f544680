// SPDX-License-Identifier: Apache-2.0

package unixsock_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
)

func TestPublishFresh(t *testing.T) {
	path := socketPath(t)
	p := bind(t, unixsock.Options{Path: path})
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Bind, Lstat of the path: %v, want it not to exist", err)
	}
	if owner, ok := p.Owner(); ok {
		t.Errorf("Owner() of a free path = %+v", owner)
	}

	l, err := p.Publish(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	go accept(l, "fresh")
	wantServer(t, path, "fresh")
	wantOnly(t, path, "kms.sock")
	if got := l.Addr().String(); got != path {
		t.Errorf("Addr() = %q, want %q", got, path)
	}

	if err := p.Close(); err != nil {
		t.Errorf("Pending.Close after Publish: %v", err)
	}
	wantServer(t, path, "fresh")
	if _, err := p.Publish(t.Context(), false); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Publish: %v, want net.ErrClosed", err)
	}

	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	wantOnly(t, path)
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v, want net.ErrClosed", err)
	}
}

func TestPendingCloseLeavesNothing(t *testing.T) {
	path := socketPath(t)
	p := bind(t, unixsock.Options{Path: path})
	if err := p.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wantOnly(t, path)
	if _, err := p.Publish(t.Context(), false); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Publish after Close: %v, want net.ErrClosed", err)
	}
}

// The longest path a client can connect to can also be bound, although a temporary name beside it could not.
func TestPublishLongestPath(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, strings.Repeat("x", 107-len(dir)-1))

	publish(t, unixsock.Options{Path: path}, false, "long")
	wantServer(t, path, "long")
	if owner, ok := bind(t, unixsock.Options{Path: path}).Owner(); !ok || owner.PID != os.Getpid() {
		t.Errorf("Owner() = %+v, %t, want this process", owner, ok)
	}
}

func TestPublishReplacesStaleSocket(t *testing.T) {
	t.Run("closed without unlink", func(t *testing.T) {
		path := socketPath(t)
		old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		old.SetUnlinkOnClose(false)
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		wantReplaceable(t, path)
	})
	t.Run("owner killed", func(t *testing.T) {
		path := socketPath(t)
		owner := start(t, "publish", path)
		if got := owner.said(t); got != "ok" {
			t.Fatal(got)
		}
		wantServer(t, path, "child")
		owner.kill()
		wantReplaceable(t, path)
	})
}

func wantReplaceable(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("the stale socket should be there: %v", err)
	}
	p := bind(t, unixsock.Options{Path: path})
	if owner, ok := p.Owner(); ok {
		t.Errorf("Owner() of a stale socket = %+v", owner)
	}
	l, err := p.Publish(t.Context(), false)
	if err != nil {
		t.Fatalf("Publish over a stale socket: %v", err)
	}
	defer l.Close()
	go accept(l, "new")
	wantServer(t, path, "new")
	wantOnly(t, path, "kms.sock")
}

func TestPublishRefusesLiveOwner(t *testing.T) {
	path := socketPath(t)
	other := start(t, "publish", path)
	if got := other.said(t); got != "ok" {
		t.Fatal(got)
	}

	p := bind(t, unixsock.Options{Path: path})
	want := unixsock.Owner{PID: other.pid(), UID: os.Getuid()}
	if got, ok := p.Owner(); !ok || got != want {
		t.Errorf("Owner() = %+v, %t, want %+v", got, ok, want)
	}
	_, err := p.Publish(t.Context(), false)
	inUse, ok := errors.AsType[*unixsock.InUseError](err)
	if !ok || inUse.Path != path || inUse.PID != other.pid() {
		t.Fatalf("Publish(false): %v, want an InUseError with pid %d", err, other.pid())
	}
	text := fmt.Sprintf("socket %s is served by process %d; stop it or start with --takeover", path, other.pid())
	if err.Error() != text {
		t.Errorf("error %q, want %q", err, text)
	}
	wantServer(t, path, "child")

	// Still pending: the same socket can be published once the owner is gone.
	other.kill()
	l, err := p.Publish(t.Context(), false)
	if err != nil {
		t.Fatalf("Publish after the owner's death: %v", err)
	}
	defer l.Close()
	go accept(l, "next")
	wantServer(t, path, "next")
}

// A process that listens but no longer accepts is hung, not gone.
func TestPublishRefusesHungOwner(t *testing.T) {
	path := socketPath(t)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := net.Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}

	_, err = bind(t, unixsock.Options{Path: path}).Publish(t.Context(), false)
	if inUse, ok := errors.AsType[*unixsock.InUseError](err); !ok || inUse.PID != 0 {
		t.Fatalf("Publish(false): %v, want an InUseError without a pid", err)
	}
	if want := "is served by a process whose id is not visible from here; stop it"; !strings.Contains(err.Error(), want) {
		t.Errorf("error %q, want one with %q", err, want)
	}
}

// Of eight that start at once exactly one serves, whatever the interleaving.
func TestPublishRace(t *testing.T) {
	path := socketPath(t)
	var (
		wg      sync.WaitGroup
		starter = make(chan struct{})
		mu      sync.Mutex
		won     []*unixsock.Listener
		lost    []error
	)
	for range 8 {
		wg.Go(func() {
			<-starter
			p, err := unixsock.Bind(t.Context(), unixsock.Options{Path: path})
			if err != nil {
				t.Errorf("Bind: %v", err)
				return
			}
			l, err := p.Publish(t.Context(), false)
			if closeErr := p.Close(); closeErr != nil {
				t.Errorf("Close: %v", closeErr)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				lost = append(lost, err)
			} else {
				won = append(won, l)
			}
		})
	}
	close(starter)
	wg.Wait()

	if len(won) != 1 {
		t.Fatalf("%d of 8 published, want 1; the others: %v", len(won), lost)
	}
	defer won[0].Close()
	for _, err := range lost {
		if inUse, ok := errors.AsType[*unixsock.InUseError](err); !ok || inUse.PID != os.Getpid() {
			t.Errorf("a loser got %v, want an InUseError with this pid", err)
		}
	}
	go accept(won[0], "winner")
	wantServer(t, path, "winner")
	wantOnly(t, path, "kms.sock")
}

func TestLockWaitEndsWithContext(t *testing.T) {
	path := socketPath(t)
	p := bind(t, unixsock.Options{Path: path})
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	want := "waiting for the lock on directory " + filepath.Dir(path)
	if _, err := unixsock.Bind(ctx, unixsock.Options{Path: path}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), want) {
		t.Errorf("Bind while another process holds the lock: %v, want %q", err, want)
	}
	if _, err := p.Publish(ctx, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Publish while another process holds the lock: %v, want the context's end", err)
	}

	// Closing the descriptor is what the kernel does for a process that dies.
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := p.Publish(t.Context(), false)
	if err != nil {
		t.Fatalf("Publish once the lock is free: %v", err)
	}
	_ = l.Close()
}

func TestBindSweepsLeftoversOnly(t *testing.T) {
	path := socketPath(t)
	killed := start(t, "bind", path)
	alive := start(t, "bind", path)
	if a, b := killed.said(t), alive.said(t); a != "ok" || b != "ok" {
		t.Fatal(a, b)
	}
	killed.kill()
	// Looks nearly like ours, but is not.
	foreign := filepath.Join(filepath.Dir(path), ".unixsock-backup")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}

	count := func() int {
		m, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".unixsock-*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(m)
	}
	if got := count(); got != 3 {
		t.Fatalf("%d temporary directories before Bind, want those of two processes and a foreign one", got)
	}
	p := bind(t, unixsock.Options{Path: path})
	if got := count(); got != 3 {
		t.Errorf("%d temporary directories after Bind, want 3: the living process's, the foreign one and ours", got)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	alive.kill()
	if err := bind(t, unixsock.Options{Path: path}).Close(); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, path, ".unixsock-backup")
}

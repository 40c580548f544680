// SPDX-License-Identifier: Apache-2.0

package unixsock_test

import (
	"context"
	"errors"
	"fmt"
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

func TestListenFresh(t *testing.T) {
	path := socketPath(t)
	l := listen(t, unixsock.Options{Path: "unix://" + path}, "fresh")
	wantServer(t, path, "fresh")
	wantOnly(t, path, "kms.sock")
	if got := l.Addr().String(); got != path {
		t.Errorf("Addr() = %q, want %q", got, path)
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

// The longest path that a client can connect to can also be bound, although a temporary name beside it would be
// too long.
func TestListenLongestPath(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, strings.Repeat("x", 107-len(dir)-1))

	listen(t, unixsock.Options{Path: path}, "long")
	wantServer(t, path, "long")
	wantInUse(t, path, os.Getpid())
}

func TestListenReplacesStaleSocket(t *testing.T) {
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
		owner := start(t, "listen", path)
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
	listen(t, unixsock.Options{Path: path}, "new")
	wantServer(t, path, "new")
	wantOnly(t, path, "kms.sock")
}

func TestListenRefusesLiveOwner(t *testing.T) {
	path := socketPath(t)
	other := start(t, "listen", path)
	if got := other.said(t); got != "ok" {
		t.Fatal(got)
	}
	wantInUse(t, path, other.pid())
	_, err := unixsock.Listen(t.Context(), unixsock.Options{Path: path})
	text := fmt.Sprintf("socket %s is served by process %d; stop it or start with --takeover", path, other.pid())
	if err.Error() != text {
		t.Errorf("error %q, want %q", err, text)
	}
	wantServer(t, path, "child")
	wantOnly(t, path, "kms.sock")

	other.kill()
	listen(t, unixsock.Options{Path: path}, "next")
	wantServer(t, path, "next")
}

// A process that listens but does not accept is hung, not gone.
func TestListenRefusesHungOwner(t *testing.T) {
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

	wantInUse(t, path, 0)
	_, err = unixsock.Listen(t.Context(), unixsock.Options{Path: path})
	if want := "is served by a process whose id is not visible from here; stop it"; !strings.Contains(err.Error(), want) {
		t.Errorf("error %q, want it to contain %q", err, want)
	}
}

// If eight start concurrently, exactly one serves.
func TestListenRace(t *testing.T) {
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
			l, err := unixsock.Listen(t.Context(), unixsock.Options{Path: path})
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
		t.Fatalf("%d of 8 listen, want 1; the others: %v", len(won), lost)
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
	if _, err := unixsock.Listen(ctx, unixsock.Options{Path: path}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), want) {
		t.Errorf("Listen while another process holds the lock: %v, want %q", err, want)
	}

	// Closing the descriptor has the same effect as the end of the process.
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	listen(t, unixsock.Options{Path: path}, "x")
}

// A process killed before its socket is at the path leaves a temporary one.
func TestListenRemovesLeftover(t *testing.T) {
	path := socketPath(t)
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(filepath.Dir(path), ".unixsock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	listen(t, unixsock.Options{Path: path}, "next")
	wantServer(t, path, "next")
	wantOnly(t, path, "kms.sock")
}

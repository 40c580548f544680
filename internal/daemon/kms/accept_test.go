// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trousseau-io/trousseau/internal/daemon/kms"
)

// exhaustFiles prevents the server from opening files until enough is called.
func (s *serverProcess) exhaustFiles(t *testing.T) (enough func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	set := func(limit unix.Rlimit) {
		if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
			t.Fatal(err)
		}
	}
	// The limit applies to the number of the next file, which is the lowest free one.
	free := uint64(0)
	for {
		if _, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", s.cmd.Process.Pid, free)); err != nil {
			break
		}
		free++
	}
	set(unix.Rlimit{Cur: free, Max: before.Max})
	return func() { set(before) }
}

// While no file can be opened, existing connections are served and new ones wait.
func TestOutOfFiles(t *testing.T) {
	server := startServer(t)
	early, closeEarly, err := dialLikeKube(server.path)
	if err != nil {
		t.Fatal(err)
	}
	defer closeEarly()
	if err := exchange(early); err != nil {
		t.Fatal(err)
	}

	enough := server.exhaustFiles(t)
	late, err := dial(server.path)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if err := late.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := late.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("without a file for it, a new connection sees %v: the test proves nothing", err)
	}
	if err := exchange(early); err != nil {
		t.Errorf("on a connection from before: %v", err)
	}

	enough()
	if kind, _ := next(t, late); kind != frameSettings {
		t.Errorf("the pending connection begins with a frame of type %d", kind)
	}
	client, closeConn, err := dialLikeKube(server.path)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn()
	if err := exchange(client); err != nil {
		t.Errorf("on a new connection: %v", err)
	}
}

// failing fails the first calls of Accept.
type failing struct {
	net.Listener
	once sync.Once
	with error
}

func (l *failing) Accept() (_ net.Conn, err error) {
	l.once.Do(func() { err = &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", l.with)} })
	if err != nil {
		return nil, err
	}
	return l.Listener.Accept()
}

func TestAcceptFails(t *testing.T) {
	for _, tt := range []struct {
		with error
		ends bool
	}{
		{syscall.EMFILE, false},
		{syscall.ENFILE, false},
		{syscall.ENOBUFS, false},
		{syscall.ENOMEM, false},
		{syscall.EINVAL, true},
	} {
		t.Run(tt.with.Error(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kms.sock")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			server := kms.New(kms.Options{KEK: working(), RequestTimeout: time.Minute})
			served := make(chan error, 1)
			go func() { served <- server.Serve(&failing{Listener: l, with: tt.with}) }()
			defer server.Shutdown(context.Background())
			if tt.ends {
				if err := <-served; !errors.Is(err, tt.with) {
					t.Errorf("Serve ends with %v, want %v", err, tt.with)
				}
				return
			}
			client, closeConn, err := dialLikeKube(path)
			if err != nil {
				t.Fatal(err)
			}
			defer closeConn()
			if err := exchange(client); err != nil {
				t.Error(err)
			}
		})
	}
}

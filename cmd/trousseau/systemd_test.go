// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/trousseau-io/trousseau/internal/daemon/kms"
	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
	"github.com/trousseau-io/trousseau/internal/seed"
)

// TestWatchdog checks when WATCHDOG=1 is sent for WatchdogSec=1min. The process is stuck from 50 s until 80 s and from
// 100 s on.
func TestWatchdog(t *testing.T) {
	dir, err := os.MkdirTemp("", "kms") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { notify.Close() })
	t.Setenv("NOTIFY_SOCKET", notify.LocalAddr().String())
	t.Setenv("WATCHDOG_USEC", "60000000")
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var sent []int // seconds since the start
		stuck := func(at time.Duration) bool {
			return at > 50*time.Second && at < 80*time.Second || at > 100*time.Second
		}
		ctx, cancel := context.WithTimeout(t.Context(), 140*time.Second) // the kernel queues 10 messages
		defer cancel()
		feedWatchdog(ctx, func(ctx context.Context) bool {
			if stuck(time.Since(began)) {
				<-ctx.Done()
				return false
			}
			sent = append(sent, int(time.Since(began).Seconds()))
			return true
		})
		if want := []int{0, 15, 30, 45, 90}; !slices.Equal(sent, want) {
			t.Errorf("asked and answered at %v s, want %v", sent, want)
		}
	})
	if err := notify.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for buf := make([]byte, 100); ; {
		n, err := notify.Read(buf)
		if err != nil {
			break
		}
		got = append(got, string(buf[:n]))
	}
	if want := slices.Repeat([]string{daemon.SdNotifyWatchdog}, 5); !slices.Equal(got, want) {
		t.Errorf("systemd reads %q, want %q", got, want)
	}
}

// keyless is a KEK without a key.
type keyless struct{ status func() (string, error) }

func (k keyless) Status() (string, error) { return k.status() }
func (keyless) Encrypt(context.Context, []byte) (w seed.Wrapped, _ error) {
	return w, errors.New("no key")
}
func (keyless) Decrypt(context.Context, seed.Wrapped) ([]byte, error) {
	return nil, errors.New("no key")
}

// TestAnswers checks what counts as alive: any answer through the process's own socket, wherever that is, but not a
// socket that is not served, or a server that does not get to an answer.
func TestAnswers(t *testing.T) {
	t.Parallel()
	outage := func(<-chan struct{}) (string, error) { return "", errors.New("vault is away") }
	stuck := func(end <-chan struct{}) (string, error) { <-end; return "", nil }
	for _, tt := range []struct {
		name   string
		status func(end <-chan struct{}) (string, error) // nil: the socket is not served
		users  []uint32
		before func(l *unixsock.Listener) error
		want   bool
	}{
		{"an outage of Vault", outage, nil, nil, true},
		{"own user not allowed", outage, []uint32{uint32(os.Geteuid()) + 1}, nil, true},
		{"path removed", outage, nil, func(l *unixsock.Listener) error { return os.Remove(l.Addr().String()) }, true},
		{"listener closed", nil, nil, (*unixsock.Listener).Close, true},
		{"nothing accepts", nil, nil, nil, false},
		{"Status does not return", stuck, nil, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "kms")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			l, err := unixsock.Listen(t.Context(), unixsock.Options{Path: filepath.Join(dir, "kms.sock"), AllowUIDs: tt.users})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			if tt.status != nil {
				end := make(chan struct{})
				server := kms.New(kms.Options{KEK: keyless{func() (string, error) { return tt.status(end) }}, RequestTimeout: time.Minute})
				go func() { _ = server.Serve(l) }()
				t.Cleanup(func() { close(end); server.Shutdown(context.Background()) })
			}
			if tt.before != nil {
				if err := tt.before(l); err != nil {
					t.Fatal(err)
				}
			}
			limit := patience
			if !tt.want {
				limit = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if got := answers(ctx, l); got != tt.want {
				t.Errorf("answers: got %t, want %t", got, tt.want)
			}
		})
	}
	if !answers(t.Context(), nil) {
		t.Error("a process that waits for its successor to end is not alive, want it to be")
	}
}

// SPDX-License-Identifier: Apache-2.0

package unixsock_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
)

const nobody = 65534

// publicPath returns a path that other users can access.
func publicPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "kms.sock")
}

func asUser(uid uint32) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		if int(uid) != os.Geteuid() {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		}
	}
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
}

func TestAllowUIDs(t *testing.T) {
	own := uint32(os.Geteuid())
	for _, tt := range []struct {
		name    string
		allowed []uint32
		uid     uint32
		ok      bool
	}{
		{"no list", nil, own, true},
		{"listed", []uint32{nobody, own}, own, true},
		{"not listed", []uint32{own + 1}, own, false},
		{"empty list", []uint32{}, own, false},
		{"another user, no list", nil, nobody, true},
		{"another user, listed", []uint32{nobody}, nobody, true},
		{"another user, not listed", []uint32{own}, nobody, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.uid != own {
				needsRoot(t)
			}
			path := publicPath(t)
			core, logs := observer.New(zap.WarnLevel)
			listen(t, unixsock.Options{Path: path, Mode: 0o622, AllowUIDs: tt.allowed, Logger: zap.New(core)}, "welcome")
			refusals := func() []observer.LoggedEntry {
				return logs.FilterMessage("connection refused, user not allowed").All()
			}

			c := start(t, "greet", path, asUser(tt.uid))
			got := c.said(t)
			if tt.ok {
				if got != "welcome" || len(refusals()) != 0 {
					t.Errorf("uid %d reads %q with %v in the log, want a greeting", tt.uid, got, refusals())
				}
				return
			}
			if got != errUnheard.Error() {
				t.Errorf("uid %d reads %q, want nothing", tt.uid, got)
			}
			if all := refusals(); len(all) != 1 || all[0].ContextMap()["uid"] != tt.uid || all[0].ContextMap()["pid"] != int32(c.pid()) {
				t.Errorf("logged %v, want one refusal of uid %d, pid %d", all, tt.uid, c.pid())
			}
		})
	}
}

// Refused connections do not affect others.
func TestRefusalsDoNotEndAccept(t *testing.T) {
	needsRoot(t)
	path := publicPath(t)
	listen(t, unixsock.Options{Path: path, Mode: 0o622, AllowUIDs: []uint32{0}}, "welcome")
	before := dial(t, path)
	before.line(t)
	for range 3 {
		if got := start(t, "greet", path, asUser(nobody)).said(t); got != errUnheard.Error() {
			t.Fatalf("uid %d reads %q, want nothing", nobody, got)
		}
		wantServer(t, path, "welcome")
	}
	before.echoes(t, 0)
}

// The user at the time of connect counts, not a later user of the connection.
func TestAllowUIDsAtTheTimeOfConnect(t *testing.T) {
	needsRoot(t)
	path := publicPath(t)
	l, err := unixsock.Listen(t.Context(), unixsock.Options{Path: path, AllowUIDs: []uint32{0}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// Call Accept after the peer has changed its user.
	if got := start(t, "drop", path).said(t); got != "ok" {
		t.Fatal(got)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// A successor whose user may not connect still learns the serving process, and takes
// over.
func TestOwnerIsSeenByUsersNotAllowed(t *testing.T) {
	path := socketPath(t)
	listen(t, unixsock.Options{Path: path, AllowUIDs: []uint32{uint32(os.Geteuid()) + 1}}, "old")
	wantInUse(t, path, os.Getpid())
	listen(t, unixsock.Options{Path: path, Takeover: true}, "new")
	wantServer(t, path, "new")
}

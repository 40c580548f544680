// SPDX-License-Identifier: Apache-2.0

package unixsock_test

import (
	"os"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

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

// A deleted path is not a replacement. It is logged once, and a new socket at the path is still noticed.
func TestPathDeleted(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	core, logs := observer.New(zap.WarnLevel)
	l := listen(t, unixsock.Options{Path: path, Logger: zap.New(core)}, "old")
	before := dial(t, path)
	before.line(t)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a warning", func() bool { return logs.Len() > 0 })
	select {
	case <-l.Replaced():
		t.Fatal("Replaced, although nothing is at the path")
	default:
	}
	before.echoes(t, 1500*time.Millisecond)

	listen(t, unixsock.Options{Path: path}, "new")
	select {
	case <-l.Replaced():
	case <-time.After(10 * time.Second):
		t.Fatal("never noticed the socket made after the deletion")
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wantServer(t, path, "new")
	if got := logs.Len(); got != 1 {
		t.Errorf("%d warnings, want 1: %v", got, logs.All())
	}
}

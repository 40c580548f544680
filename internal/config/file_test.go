// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/trousseau-io/trousseau/internal/config"
)

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	largest := bytes.Repeat([]byte("x"), config.MaxSize)
	name := func(base string) string { return filepath.Join(dir, base) }
	write(t, name("largest"), largest)
	write(t, name("empty"), nil)
	if err := os.Symlink("largest", name("link")); err != nil {
		t.Fatal(err)
	}
	for base, want := range map[string][]byte{"largest": largest, "link": largest, "empty": {}} {
		got, err := config.ReadFile(name(base))
		if err != nil {
			t.Errorf("%s: %v", base, err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, want %d as written", base, len(got), len(want))
		}
	}
}

func TestReadFileRefuses(t *testing.T) {
	dir := t.TempDir()
	name := func(base string) string { return filepath.Join(dir, base) }
	write(t, name("too-large"), bytes.Repeat([]byte("x"), config.MaxSize+1))
	if err := syscall.Mkfifo(name("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", name("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	tests := []struct{ name, want string }{
		{name("too-large"), "read " + name("too-large") + ": larger than 1 MiB"},
		{name("pipe"), "read " + name("pipe") + ": not a regular file"},
		{name("socket"), "read " + name("socket") + ": not a regular file"},
		{dir, "read " + dir + ": not a regular file"},
		{"/dev/zero", "read /dev/zero: not a regular file"},
		{name("absent"), "open " + name("absent") + ": no such file or directory"},
	}
	for _, tt := range tests {
		content, err := config.ReadFile(tt.name)
		if err == nil || err.Error() != tt.want || content != nil {
			t.Errorf("got %d bytes and error %v, want %s", len(content), err, tt.want)
		}
		if _, ok := errors.AsType[*fs.PathError](err); !ok {
			t.Errorf("%s: got error type %T, want *fs.PathError", tt.name, err)
		}
	}
	if _, err := config.ReadFile(name("absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want it to be fs.ErrNotExist", err)
	}
}

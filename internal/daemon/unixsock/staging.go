// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"go.uber.org/zap"
)

// A socket is born inside a directory only its owner can enter, because bind(2) creates it with whatever the umask
// leaves over, and the umask belongs to the whole process: changing it would race with every other goroutine that
// creates a file.
const (
	stagingPrefix = ".unixsock-"
	stagedName    = "socket"
)

// stagingName matches what newStagingName returns, so that a sweep touches nothing else.
var stagingName = regexp.MustCompile(`^\.unixsock-[A-Z2-7]{10}$`)

func newStagingName() string {
	return stagingPrefix + rand.Text()[:10]
}

// listen binds and listens on a socket in a new staging directory, with its final mode and group, gid -1 leaving the
// group alone. The caller holds the lock: a staging directory without a listener is then always a leftover.
func (d *directory) listen(mode fs.FileMode, gid int) (staging string, _ *net.UnixListener, err error) {
	staging = newStagingName()
	if err := d.root.Mkdir(staging, 0o700); err != nil {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			return "", nil, fmt.Errorf("directory %s is not writable for uid %d: %w; give it to that user or choose another path", d.path, os.Geteuid(), cause(err))
		}
		return "", nil, fmt.Errorf("creating a temporary directory in %s: %w", d.path, cause(err))
	}

	socket := filepath.Join(staging, stagedName)
	bound := filepath.Join(procPath(int(d.file.Fd())), socket)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: bound, Net: "unix"})
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("binding a socket in directory %s: %w", d.path, cause(err)), d.discard(staging))
	}
	// By default Close unlinks the name the socket was bound to. That name is gone once the socket is published.
	listener.SetUnlinkOnClose(false)

	if err := d.permit(socket, mode, gid); err != nil {
		return "", nil, errors.Join(err, listener.Close(), d.discard(staging))
	}
	return staging, listener, nil
}

func (d *directory) permit(socket string, mode fs.FileMode, gid int) error {
	if gid >= 0 {
		if err := d.root.Chown(socket, -1, gid); err != nil {
			return fmt.Errorf("giving the socket in %s to group %d as uid %d: %w; the process must be a member of that group", d.path, gid, os.Geteuid(), cause(err))
		}
	}
	if err := d.root.Chmod(socket, mode); err != nil {
		return fmt.Errorf("setting mode %#o on the socket in %s: %w", mode, d.path, cause(err))
	}
	return nil
}

// discard removes a staging directory and the socket in it. What is gone already is no error.
func (d *directory) discard(staging string) error {
	for _, name := range []string{filepath.Join(staging, stagedName), staging} {
		if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing %s: %w", filepath.Join(d.path, name), cause(err))
		}
	}
	return nil
}

// sweep removes the staging directories of processes that were killed before they published. The caller holds the
// lock. A sweep that fails costs an empty directory, so it is logged and no more.
func (d *directory) sweep(log *zap.Logger) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		log.Warn("cannot look for leftovers of killed processes", zap.String("directory", d.path), zap.Error(cause(err)))
		return
	}
	for _, entry := range entries {
		if !stagingName.MatchString(entry.Name()) || !entry.IsDir() {
			continue
		}
		if _, live, err := d.owner(filepath.Join(entry.Name(), stagedName)); live || err != nil {
			continue
		}
		if err := d.discard(entry.Name()); err != nil {
			log.Warn("cannot remove the leftover of a killed process", zap.Error(err))
			continue
		}
		log.Info("removed the leftover of a killed process", zap.String("path", filepath.Join(d.path, entry.Name())))
	}
}

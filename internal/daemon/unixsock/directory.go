// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockWait bounds the wait for a lock that is otherwise held for well under a millisecond.
	lockWait = 5 * time.Second
	lockPoll = 5 * time.Millisecond
)

// directory is the directory a socket lives in, held open: every step goes through one descriptor, so that all of
// them act on the same directory whatever happens to its name meanwhile.
type directory struct {
	path string
	root *os.Root
	file *os.File // the same directory; flock and /proc need a descriptor, which os.Root keeps to itself
}

func openDirectory(path string) (*directory, error) {
	root, err := os.OpenRoot(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("directory %s does not exist; create it for the user that runs this process: mkdir -p -m 0750 %s", path, path)
	case err != nil && !isDirectory(path):
		return nil, fmt.Errorf("%s is not a directory; choose another path for the socket", path)
	case err != nil:
		return nil, fmt.Errorf("opening directory %s as uid %d: %w", path, os.Geteuid(), cause(err))
	}
	file, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening directory %s: %w", path, cause(err)), root.Close())
	}
	return &directory{path: path, root: root, file: file}, nil
}

// isDirectory is for explaining an error: os.OpenRoot reports a file with a text of its own instead of ENOTDIR.
func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return !errors.Is(err, syscall.ENOTDIR) && (err != nil || info.IsDir())
}

func (d *directory) close() error {
	return errors.Join(d.file.Close(), d.root.Close())
}

// lock excludes every other process and every other directory value on the same directory until unlock is called.
// The lock is on the directory itself: there is no lock file to leave behind, and the kernel drops it with a process
// that dies.
func (d *directory) lock(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, fmt.Errorf("another process has held it for %s (see lslocks)", lockWait))
	defer cancel()
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()

	fd := int(d.file.Fd())
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			// Unlocking a descriptor we hold cannot fail.
			return func() { _ = unix.Flock(fd, unix.LOCK_UN) }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, fmt.Errorf("locking directory %s: %w", d.path, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the lock on directory %s: %w", d.path, context.Cause(ctx))
		case <-poll.C:
		}
	}
}

// checkUnmoved refuses a directory that no longer stands under its name: a socket renamed into it would be seen by
// nobody.
func (d *directory) checkUnmoved() error {
	held, err := d.file.Stat()
	if err != nil {
		return fmt.Errorf("looking at directory %s: %w", d.path, cause(err))
	}
	named, err := os.Stat(d.path)
	if err != nil {
		return fmt.Errorf("looking at directory %s: %w", d.path, cause(err))
	}
	if !os.SameFile(held, named) {
		return fmt.Errorf("directory %s was replaced by another one since the socket was bound; start again", d.path)
	}
	return nil
}

// owner tells who listens on the socket called name. ok is false when nobody does: nothing stands there, or a socket
// whose process is gone. Anything that is not a socket is an error that names its kind.
func (d *directory) owner(name string) (_ Owner, ok bool, _ error) {
	path := filepath.Join(d.path, name)

	// One O_PATH descriptor for both questions: what is dialled is what was looked at, and a name too long for
	// sun_path beside "/proc/self/fd/N/" does not matter.
	fd, err := unix.Openat(int(d.file.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Owner{}, false, nil
	}
	if err != nil {
		return Owner{}, false, fmt.Errorf("looking at %s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()

	info, err := file.Stat()
	if err != nil {
		return Owner{}, false, fmt.Errorf("looking at %s: %w", path, cause(err))
	}
	if info.Mode().Type() != fs.ModeSocket {
		return Owner{}, false, fmt.Errorf("%s is %s, not a socket; remove it or choose another path", path, kind(info.Mode()))
	}

	owner, err := dialOwner(procPath(fd))
	switch {
	case err == nil:
		return owner, true, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return Owner{}, false, nil
	case errors.Is(err, syscall.EAGAIN):
		// The backlog is full: somebody listens but does not accept. Hung is not gone.
		return Owner{}, true, nil
	default:
		return Owner{}, false, fmt.Errorf("asking who serves socket %s: %w", path, cause(err))
	}
}

// procPath names an open descriptor as a path short enough for sun_path.
func procPath(fd int) string {
	return fmt.Sprintf("/proc/self/fd/%d", fd)
}

// cause strips what os and net put around an errno: their text repeats the path, or shows one in /proc that means
// nothing to an operator.
func cause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

func kind(mode fs.FileMode) string {
	switch mode.Type() {
	case 0:
		return "a regular file"
	case fs.ModeDir:
		return "a directory"
	case fs.ModeSymlink:
		return "a symbolic link"
	case fs.ModeNamedPipe:
		return "a named pipe"
	default:
		return "a device"
	}
}

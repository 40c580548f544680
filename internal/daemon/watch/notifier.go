// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// notifier tells when something may have happened in one of a set of
// directories. It watches directories, not files: a watch on a file ends when
// another file is renamed over it.
//
// Every look sets the directories again (reset, then watch). That costs a few
// system calls, and finds a directory that was replaced under its old name.
//
// All methods are for one goroutine. Another one receives from fsnotify: while
// fsnotify waits for an error to be received it may hold the lock that its Add,
// Remove and Close need (1.10.1, inotify.handleEvent on IN_MOVE_SELF).
type notifier struct {
	// changed holds a value if something may have happened since it was last
	// received from.
	changed chan struct{}
	// fault is why a change since reset may go unnoticed, nil if none can.
	fault     error
	open      func() (*fsnotify.Watcher, error)
	inotify   *fsnotify.Watcher // nil while none could be opened
	receiving sync.WaitGroup
}

// reset empties the set, and opens inotify if it is not open.
func (n *notifier) reset() {
	n.fault = nil
	if n.inotify != nil {
		for _, dir := range n.inotify.WatchList() {
			// It fails if the directory is gone, and its watch with it.
			_ = n.inotify.Remove(dir)
		}
		return
	}
	in, err := n.open()
	if err != nil {
		n.fault = fmt.Errorf("opening inotify: %w%s", err, remedy(err))
		return
	}
	n.inotify = in
	n.receiving.Go(func() { n.receive(in) })
}

// watch adds the directory of a file, and that of the file to which its
// symbolic links lead. Changes in both are notified from its return on.
func (n *notifier) watch(name string) {
	n.add(filepath.Dir(name))
	// Only now: a link that is changed from here on is noticed.
	if target, err := filepath.EvalSymlinks(name); err == nil {
		n.add(filepath.Dir(target))
	}
}

func (n *notifier) add(dir string) {
	if n.inotify == nil {
		return
	}
	// The poll finds a directory that does not exist yet.
	err := n.inotify.Add(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && n.fault == nil {
		n.fault = fmt.Errorf("watching directory %s: %w%s", dir, err, remedy(err))
	}
}

// close releases everything. The notifier cannot be used again.
func (n *notifier) close() {
	if n.inotify != nil {
		_ = n.inotify.Close() // Nothing can be done about a failure.
	}
	n.receiving.Wait()
}

// receive takes everything that in sends, until in is closed. An error is a
// change too: events may have been lost (fsnotify.ErrEventOverflow).
func (n *notifier) receive(in *fsnotify.Watcher) {
	for open := true; open; {
		select {
		case _, open = <-in.Events:
		case _, open = <-in.Errors:
		}
		select {
		case n.changed <- struct{}{}:
		default: // The one before has not been received and will do.
		}
	}
}

// remedy names the kernel limit behind an inotify error whose text does not
// mention it.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return " (raise fs.inotify.max_user_instances or the number of open files)"
	case errors.Is(err, syscall.ENOSPC):
		return " (raise fs.inotify.max_user_watches)"
	}
	return ""
}

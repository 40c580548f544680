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

// notifier tells that something may have happened to one of a set of directory
// entries. It watches directories, never files: a watch on a file ends when
// another is renamed over it.
//
// The set is told anew before every look (reset, then watch). That costs a few
// system calls and makes one case of many: a directory that was replaced, or
// one of its ancestors; two names of one directory; a watch that the kernel or
// fsnotify dropped; a directory that is no longer of interest.
//
// All methods are for one goroutine. What fsnotify sends is received by another
// one, because fsnotify may hold, while it waits for an error to be received
// (1.10.1, inotify.handleEvent on IN_MOVE_SELF), the lock that its Add, Remove
// and Close need.
type notifier struct {
	// changed holds a value if something may have happened since it was last
	// received from.
	changed chan struct{}

	// fault is why not every change since reset is notified, nil if every one
	// is.
	fault error

	open      func() (*fsnotify.Watcher, error)
	inotify   *fsnotify.Watcher // nil while none is to be had
	receiving sync.WaitGroup
	dirs      map[string]bool // watched since reset

	mu      sync.Mutex
	entries map[string]bool // names that matter, in whichever directory
}

func newNotifier(open func() (*fsnotify.Watcher, error)) *notifier {
	return &notifier{open: open, changed: make(chan struct{}, 1)}
}

// reset empties the set. It also tries to get an inotify instance if there is
// none.
func (n *notifier) reset() {
	n.fault = nil
	n.dirs = make(map[string]bool)
	n.mu.Lock()
	n.entries = make(map[string]bool)
	n.mu.Unlock()

	if n.inotify != nil {
		for _, dir := range n.inotify.WatchList() {
			// It fails if the kernel was quicker, the directory being gone.
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

// watch adds an entry to the set. From its return on, whatever happens to the
// entry, or to the directory itself, is notified, unless fault says otherwise.
func (n *notifier) watch(dir, entry string) {
	if n.inotify == nil {
		return
	}
	n.mu.Lock()
	n.entries[entry] = true
	n.mu.Unlock()

	if n.dirs[dir] {
		return
	}
	n.dirs[dir] = true
	err := n.inotify.Add(dir)
	// A directory that has gone meanwhile is an entry of another one, which is
	// watched.
	if err != nil && !errors.Is(err, fs.ErrNotExist) && n.fault == nil {
		n.fault = fmt.Errorf("watching directory %s: %w%s", dir, err, remedy(err))
	}
}

// close releases everything. The notifier cannot be used again.
func (n *notifier) close() {
	if n.inotify != nil {
		// Closing the descriptor cannot usefully fail, and nobody could act on it.
		_ = n.inotify.Close()
	}
	n.receiving.Wait()
}

// receive takes everything that in sends, until in is closed.
func (n *notifier) receive(in *fsnotify.Watcher) {
	for {
		select {
		case event, ok := <-in.Events:
			if !ok {
				return
			}
			if n.matters(event.Name) {
				n.notify()
			}
		case _, ok := <-in.Errors:
			if !ok {
				return
			}
			// Events may have been lost (fsnotify.ErrEventOverflow).
			n.notify()
		}
	}
}

// matters reports whether an event with that name is about an entry of the set.
// The directory is not compared, because fsnotify knows each by one name only;
// a namesake in another directory causes a needless look at worst.
func (n *notifier) matters(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.entries[filepath.Base(name)]
}

func (n *notifier) notify() {
	select {
	case n.changed <- struct{}{}:
	default: // The one before has not been received and will do.
	}
}

// remedy names the limit behind the errors of inotify(7) that do not.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return " (the limits are fs.inotify.max_user_instances and the number of open files)"
	case errors.Is(err, syscall.ENOSPC):
		return " (the limit is fs.inotify.max_user_watches)"
	}
	return ""
}

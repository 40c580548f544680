// SPDX-License-Identifier: Apache-2.0

// Package watch answers one question about a file and the files that belong
// to it: what are their bytes now?
//
// It does not know what the bytes mean. It reads all of the files in one look,
// hashes exactly what it read, and reports when the hash has changed, whichever
// way the change came about: a Vault Agent's rename, an editor's write in
// place, kubelet's swap of the ..data link, a directory taken away and put
// back. inotify says when to look, so a change is seen at once; a steady poll
// looks anyway, because inotify is silent on network file systems and for
// changes of mounts, and may not be available at all.
package watch

import (
	"cmp"
	"context"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

const (
	defaultPoll  = 10 * time.Second
	defaultQuiet = 50 * time.Millisecond

	// A file that is written without a pause must not keep us from ever
	// looking, so a look is postponed by this many quiet periods at most.
	maxQuiets = 10
)

// Options says what a [Watcher] watches, and how.
type Options struct {
	// Path is the absolute name of the main file. Neither it nor its
	// directory need exist yet.
	Path string

	// Related returns the absolute names of the other files that belong to
	// the main file, given the bytes just read from it, which it must not
	// modify. It is not called when the main file cannot be read. It is called
	// from Run, once per look, so it must be quick. Nil means that there are
	// no such files.
	Related func(main []byte) []string

	// Read returns the content of the named file. It is called from Run, which
	// can do nothing else, end included, until Read returns. Its error texts
	// are part of the digest and so must be the same for the same condition.
	// Nil means a reader that refuses files of more than 1 MiB and anything
	// that is not a regular file.
	Read func(name string) ([]byte, error)

	// Poll is how often the files are read even if no change was notified.
	// Zero means 10 seconds.
	Poll time.Duration

	// Quiet is how long no change must have been notified before the files are
	// read, so that a file that is truncated and then written is usually not
	// read in between. Changes that never pause postpone a read by no more
	// than 10 × Quiet. Zero means 50 ms.
	Quiet time.Duration

	// Logger is told when notification cannot be had, and when it works again.
	// Nil means no log.
	Logger *zap.Logger

	// notify opens an inotify instance. Nil means fsnotify.NewWatcher; tests
	// put a failing one here.
	notify func() (*fsnotify.Watcher, error)
}

// Watcher reports what a file and those that belong to it contain, each time
// that it changes. Make one with [New]; it does nothing until [Watcher.Run].
// Its other methods may be called at any time, from any goroutine.
type Watcher struct {
	path     string
	related  func(main []byte) []string
	readFile func(name string) ([]byte, error)
	poll     time.Duration
	quiet    time.Duration
	logger   *zap.Logger

	notifier *notifier
	blind    bool // it has been logged that not every change is notified
	asked    chan struct{}
	contents chan Content
}

// New returns a Watcher that is yet to be run. It touches no file.
func New(o Options) *Watcher {
	w := &Watcher{
		path:     o.Path,
		related:  o.Related,
		readFile: o.Read,
		poll:     cmp.Or(o.Poll, defaultPoll),
		quiet:    cmp.Or(o.Quiet, defaultQuiet),
		logger:   o.Logger,
		asked:    make(chan struct{}, 1),
		contents: make(chan Content),
	}
	if w.related == nil {
		w.related = func([]byte) []string { return nil }
	}
	if w.readFile == nil {
		w.readFile = readRegular
	}
	if w.logger == nil {
		w.logger = zap.NewNop()
	}
	if o.notify == nil {
		o.notify = fsnotify.NewWatcher
	}
	w.notifier = newNotifier(o.notify)
	return w
}

// Contents returns the channel on which Run sends what the files hold: once at
// the start, even if the main file cannot be read then, and afterwards whenever
// the digest differs from the one last received. A slow receiver misses what
// was there in between and gets only the newest. The channel is never closed.
func (w *Watcher) Contents() <-chan Content { return w.contents }

// Look makes Run read the files now, without waiting for a quiet moment. It
// does not wait for that to happen. The reading begins after the call, so that
// it sees every change made before it.
func (w *Watcher) Look() {
	select {
	case w.asked <- struct{}{}:
	default: // The look already asked for has not begun.
	}
}

// Run watches until ctx is done and then returns, having released everything
// it held. No error of the file system ends it. Call it once.
func (w *Watcher) Run(ctx context.Context) {
	defer w.notifier.close()

	poll := time.NewTicker(w.poll)
	defer poll.Stop()
	quiet := time.NewTimer(w.quiet)
	defer quiet.Stop()

	var (
		newest   Content
		received string         // the digest last received
		out      chan<- Content // nil while newest is what was last received
		latest   time.Time      // until when a look may be postponed; zero: none is
	)
	look := func() {
		quiet.Stop()
		latest = time.Time{}
		newest, out = w.look(), nil
		if newest.Digest != received {
			out = w.contents
		}
	}

	look()
	for {
		select {
		case <-ctx.Done():
			return

		case out <- newest:
			received, out = newest.Digest, nil

		case <-w.notifier.changed:
			now := time.Now()
			if latest.IsZero() {
				latest = now.Add(maxQuiets * w.quiet)
			}
			quiet.Reset(min(w.quiet, latest.Sub(now)))

		case <-quiet.C:
			look()

		case <-poll.C:
			// A postponed look comes soon, and at a better moment.
			if latest.IsZero() {
				look()
			}

		case <-w.asked:
			look()
		}
	}
}

// look reads all of the files. Each is watched before it is read, so that no
// change can fall between the two.
func (w *Watcher) look() Content {
	w.notifier.reset()
	c := read(w.path, w.related, func(name string) ([]byte, error) {
		for dir, entry := range lookups(name) {
			w.notifier.watch(dir, entry)
		}
		return w.readFile(name)
	})
	w.report(w.notifier.fault)
	return c
}

// report logs that notification stopped or resumed, but not that it goes on
// failing: every look tries anew.
func (w *Watcher) report(fault error) {
	blind := fault != nil
	if blind == w.blind {
		return
	}
	w.blind = blind
	if blind {
		w.logger.Warn("not every file change can be notified: relying on periodic reads",
			zap.Duration("interval", w.poll), zap.Error(fault))
		return
	}
	w.logger.Info("file changes are notified again")
}

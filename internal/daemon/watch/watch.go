// SPDX-License-Identifier: Apache-2.0

// Package watch parses a file, and the files that it names, whenever one of them
// changes. It knows nothing of their format.
//
// inotify says when to look, so a rename or a write in a watched directory is
// seen at once. A steady poll sees everything else: a directory that is removed
// and created again, network file systems, mounts, inotify not available.
package watch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// Options says what a [Watcher] watches, and how. Path, Parse and Read are
// required.
type Options[T any] struct {
	// Path is the absolute name of the main file, which need not exist yet.
	Path string
	// Parse turns the content of the main file into a value. It gets other files
	// from open, by absolute name and only until it returns; open reads each once
	// in a look. Parse must not modify the bytes. It is called from Run, once per
	// look in which the main file could be read.
	Parse func(main []byte, open func(name string) ([]byte, error)) (T, error)
	// Read returns the content of the named file. It is called from Run, which
	// does nothing else meanwhile. Its error texts are part of the digest, so
	// they must be the same for the same condition.
	Read func(name string) ([]byte, error)
	// Poll is the time between two looks without a notification. Zero means 2 s.
	Poll time.Duration
	// Quiet is how long there must be no notification before a look, so that a
	// file that is truncated and then written is usually not read in between.
	// Notifications without a pause postpone it by at most 6 × Quiet. Zero means
	// 50 ms.
	Quiet time.Duration
	// Logger is told when notification fails, and when it works again. Nil
	// means no log.
	Logger *zap.Logger
	// notify opens an inotify instance. Nil means fsnotify.NewWatcher; tests
	// put a failing one here.
	notify func() (*fsnotify.Watcher, error)
}

// Content is the result of one look. It may be copied and used concurrently. A
// file that was caught half-written is reported so, and again once complete.
type Content[T any] struct {
	// Path is the main file's name, as in Options.
	Path string
	// Digest is the hex SHA-256 of the name of each file that was read, with
	// its content or the reason why it could not be read.
	Digest string
	// Value and Err are what Parse returned for exactly the bytes behind Digest.
	// If the main file could not be read, Err is the error of Read.
	Value T
	Err   error
}

// Watcher reports the value of a file each time that it changes. Make one with
// [New]; it does nothing until [Watcher.Run]. Its other methods may be called
// at any time, from any goroutine.
type Watcher[T any] struct {
	o        Options[T]
	notifier *notifier
	blind    bool // it has been logged that notification fails
	asked    chan struct{}
	contents chan Content[T]
}

// New returns a Watcher that is yet to be run. It touches no file.
func New[T any](o Options[T]) *Watcher[T] {
	o.Poll = cmp.Or(o.Poll, 2*time.Second)
	o.Quiet = cmp.Or(o.Quiet, 50*time.Millisecond)
	o.Logger = cmp.Or(o.Logger, zap.NewNop())
	if o.notify == nil {
		o.notify = fsnotify.NewWatcher
	}
	return &Watcher[T]{
		o:        o,
		notifier: &notifier{open: o.notify, changed: make(chan struct{}, 1)},
		asked:    make(chan struct{}, 1),
		contents: make(chan Content[T]),
	}
}

// Contents returns the channel on which Run sends: once at the start, even if
// the main file cannot be read then, and afterwards whenever the digest differs
// from the one last received. A slow receiver gets only the newest. The channel
// is never closed.
func (w *Watcher[T]) Contents() <-chan Content[T] { return w.contents }

// Look makes Run look now, without waiting for a quiet moment, or a second after
// the last look that was asked for: a caller cannot keep Run busy. It does not wait
// for the look, which begins after the call and so sees every earlier change.
func (w *Watcher[T]) Look() {
	select {
	case w.asked <- struct{}{}:
	default: // The look already asked for has not begun.
	}
}

// Run watches until ctx is done, then releases everything and returns. No error
// of the file system ends it. Call it once.
func (w *Watcher[T]) Run(ctx context.Context) {
	defer w.notifier.close()
	poll := time.NewTicker(w.o.Poll)
	defer poll.Stop()
	quiet := time.NewTimer(w.o.Quiet)
	defer quiet.Stop()
	var (
		newest   Content[T]
		received string            // the digest last received
		out      chan<- Content[T] // nil while newest is what was last received
		latest   time.Time         // until when a look may be postponed; zero: none is
		asked    = w.asked         // nil for a second after a look that was asked for
		resume   <-chan time.Time  // ends that second
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
				latest = now.Add(6 * w.o.Quiet)
			}
			quiet.Reset(min(w.o.Quiet, latest.Sub(now)))
		case <-quiet.C:
			look()
		case <-poll.C:
			// A postponed look comes soon, and at a better moment.
			if latest.IsZero() {
				look()
			}
		case <-asked:
			look()
			asked, resume = nil, time.After(time.Second)
		case <-resume:
			asked = w.asked
		}
	}
}

// file is the outcome of reading one file.
type file struct {
	data []byte
	err  error
}

// look reads and parses. Each file is watched before it is read, so that no
// change can fall between the two.
func (w *Watcher[T]) look() Content[T] {
	w.notifier.reset()
	files := make(map[string]file)
	open := func(name string) ([]byte, error) {
		f, known := files[name]
		if !known {
			w.notifier.watch(name)
			f.data, f.err = w.o.Read(name)
			files[name] = f
		}
		return f.data, f.err
	}
	c := Content[T]{Path: w.o.Path}
	main, err := open(w.o.Path)
	if c.Err = err; err == nil {
		c.Value, c.Err = w.o.Parse(main, open)
	}
	c.Digest = digest(files)
	w.report(w.notifier.fault)
	return c
}

// digest hashes files in an order and an encoding in which no two different
// sets look alike.
func digest(files map[string]file) string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if f := files[name]; f.err != nil {
			fmt.Fprintf(sum, "%x error %x\n", name, f.err.Error())
		} else {
			fmt.Fprintf(sum, "%x data %x\n", name, f.data)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// report logs that notification fails or works again, once for each change.
func (w *Watcher[T]) report(fault error) {
	switch {
	case fault != nil && !w.blind:
		w.o.Logger.Warn("file notification unavailable, relying on polling",
			zap.Duration("interval", w.o.Poll), zap.Error(fault))
	case fault == nil && w.blind:
		w.o.Logger.Info("file notification works again")
	}
	w.blind = fault != nil
}

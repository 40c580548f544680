// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/daemon/watch"
)

// bound is the time limit for expected events.
const bound = 20 * time.Second

// Results of held for a main file without content.
const (
	absent     = "(absent)"
	unreadable = "(unreadable)"
)

// parsed is the parse result in these tests: the text of the main file, and the
// results of opening the other files.
type parsed struct {
	main  string
	files map[string]outcome
}

type outcome struct {
	text string
	err  error
}

type (
	options = watch.Options[parsed]
	content = watch.Content[parsed]
	watcher = watch.Watcher[parsed]
)

// opening returns a Parse that opens the files that names returns for the main file.
func opening(names func(main string) []string) func([]byte, func(string) ([]byte, error)) (parsed, error) {
	return func(main []byte, open func(string) ([]byte, error)) (parsed, error) {
		p := parsed{string(main), make(map[string]outcome)}
		for _, name := range names(p.main) {
			data, err := open(name)
			p.files[name] = outcome{string(data), err}
		}
		return p, nil
	}
}

func held(c content) string {
	switch {
	case c.Err == nil:
		return c.Value.main
	case errors.Is(c.Err, fs.ErrNotExist):
		return absent
	default:
		return unreadable
	}
}

// start runs a Watcher until the end of the test. By default it reads real files and
// parses only the main one.
func start(t *testing.T, o options) *watcher {
	t.Helper()
	if o.Read == nil {
		o.Read = os.ReadFile
	}
	if o.Parse == nil {
		o.Parse = opening(func(string) []string { return nil })
	}
	w := watch.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return w
}

func receive(t *testing.T, w *watcher) content {
	t.Helper()
	select {
	case c := <-w.Contents():
		return c
	case <-time.After(bound):
		t.Fatalf("nothing received within %v", bound)
		panic("unreachable")
	}
}

// await receives until the main file has the content want. Contents in between may
// or may not be reported.
func await(t *testing.T, w *watcher, want string) content {
	t.Helper()
	var got []string
	timeout := time.After(bound)
	for {
		select {
		case c := <-w.Contents():
			if held(c) == want {
				return c
			}
			got = append(got, held(c))
		case <-timeout:
			t.Fatalf("not received within %v: got %q, want %q", bound, got, want)
		}
	}
}

// eventually polls for a condition that no channel reports.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	timeout := time.After(bound)
	for !cond() {
		select {
		case <-time.After(time.Millisecond):
		case <-timeout:
			t.Fatalf("timed out after %v waiting: %s", bound, what)
		}
	}
}

// reader is an Options.Read that records the requested names.
type reader struct {
	mu    sync.Mutex
	count int
	last  string
}

func (r *reader) read(name string) ([]byte, error) {
	data, err := os.ReadFile(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.last = string(data)
	return data, err
}

func (r *reader) reads() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

func (r *reader) saw(data string) func() bool {
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.last == data
	}
}

// collect receives everything, and returns what has been received so far.
func collect(t *testing.T, w *watcher) func() []string {
	t.Helper()
	var (
		mu       sync.Mutex
		received []string
	)
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case c := <-w.Contents():
				mu.Lock()
				received = append(received, held(c))
				mu.Unlock()
			case <-done:
				return
			}
		}
	}()
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(received)
	}
}

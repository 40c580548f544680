// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trousseau-io/trousseau/internal/daemon/watch"
)

// exhausted fails as fsnotify.NewWatcher does at the limit
// fs.inotify.max_user_instances.
func exhausted() (*fsnotify.Watcher, error) { return nil, syscall.EMFILE }

// The error is fsnotify's error for an overflow of the kernel's queue.
func TestOverflow(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "one")
	errs := make(chan error)
	var r reader
	w := start(t, options{Path: root.at("etc/config.yaml"), Read: r.read, Poll: time.Hour}.WithNotify(
		func() (*fsnotify.Watcher, error) {
			in, err := fsnotify.NewWatcher()
			if err == nil {
				in.Errors = errs
			}
			return in, err
		}))
	receive(t, w)

	before := r.reads()
	for range 10 { // each is received although a look is already pending
		select {
		case errs <- fsnotify.ErrEventOverflow:
		case <-time.After(bound):
			t.Fatal("fsnotify is blocked")
		}
	}
	eventually(t, "the overflow caused a look", func() bool { return r.reads() > before })
}

func TestNotificationUnavailable(t *testing.T) {
	for _, tc := range []struct {
		name string
		open func() (*fsnotify.Watcher, error)
		want string // in the logged error
	}{
		{"no instance", exhausted, "opening inotify: too many open files (raise fs.inotify.max_user_instances"},
		{"no watch", func() (*fsnotify.Watcher, error) {
			in, err := fsnotify.NewWatcher()
			if err == nil {
				err = in.Close() // from now on Add fails
			}
			return in, err
		}, "watching directory /"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := newDir(t)
			root.write("etc/config.yaml", "one")
			core, logs := observer.New(zap.DebugLevel)
			var r reader
			w := start(t, options{
				Path: root.at("etc/config.yaml"), Read: r.read, Poll: time.Millisecond, Logger: zap.New(core),
			}.WithNotify(tc.open))

			receive(t, w)
			eventually(t, "there were ten polls", func() bool { return r.reads() > 10 })
			root.render("etc/config.yaml", "two")
			await(t, w, "two")

			got := logs.All()
			if len(got) != 1 || got[0].Level != zap.WarnLevel {
				t.Fatalf("logged %v, want one warning", got)
			}
			if text := got[0].ContextMap()["error"].(string); !strings.Contains(text, tc.want) {
				t.Errorf("logged %q, want it to contain %q", text, tc.want)
			}
		})
	}
}

func TestNotificationReturns(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "one")
	core, logs := observer.New(zap.DebugLevel)
	var (
		available atomic.Bool
		inotify   atomic.Pointer[fsnotify.Watcher]
	)
	w := start(t, options{
		Path: root.at("etc/config.yaml"), Poll: 10 * time.Millisecond, Logger: zap.New(core),
	}.WithNotify(func() (*fsnotify.Watcher, error) {
		if !available.Load() {
			return exhausted()
		}
		in, err := fsnotify.NewWatcher()
		inotify.Store(in)
		return in, err
	}))
	receive(t, w)

	available.Store(true)
	eventually(t, "its return was logged", func() bool { return logs.FilterLevelExact(zap.InfoLevel).Len() == 1 })
	if got := logs.Len(); got != 2 {
		t.Errorf("logged %d entries, want 2", got)
	}
	eventually(t, "the directory is watched", func() bool {
		return slices.Contains(inotify.Load().WatchList(), root.at("etc"))
	})
}

// TestWhenFilesAreRead reports changes at given times and records when the main file
// is read. There is no change at 0, because its order with the first read would be
// random.
func TestWhenFilesAreRead(t *testing.T) {
	t.Parallel()
	pauseless := make([]int, 14)
	for i := range pauseless {
		pauseless[i] = 100 + 40*i
	}
	for _, tc := range []struct {
		name    string
		poll    time.Duration
		changes []int // all times are in ms since the start
		end     int
		want    []int
	}{
		{"no change, default poll", 0, nil, 5000, []int{0, 2000, 4000}},
		{"one change", 0, []int{100}, 1000, []int{0, 150}},
		{"changes in quick succession", 0, []int{100, 140, 180}, 1000, []int{0, 230}},
		{"changes apart", 0, []int{100, 300}, 1000, []int{0, 150, 350}},
		{"changes without a pause", 0, pauseless, 1000, []int{0, 400, 670}},
		{"poll while a read is due", 200 * time.Millisecond, []int{180}, 500, []int{0, 230, 400}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			// Its goroutine must be outside the bubble, which would otherwise never be
			// idle; its channels must be inside.
			in, err := fsnotify.NewWatcher()
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				in.Events, in.Errors = make(chan fsnotify.Event), make(chan error)
				begin := time.Now()
				var got []int
				w := watch.New(options{
					Path: "/nowhere/config.yaml",
					Read: func(string) ([]byte, error) {
						got = append(got, int(time.Since(begin).Milliseconds()))
						return nil, nil
					},
					Parse: opening(func(string) []string { return nil }),
					Poll:  tc.poll,
				}.WithNotify(func() (*fsnotify.Watcher, error) { return in, nil }))
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { w.Run(ctx) })

				sleepUntil := func(ms int) { time.Sleep(time.Duration(ms)*time.Millisecond - time.Since(begin)) }
				for _, ms := range tc.changes {
					sleepUntil(ms)
					in.Events <- fsnotify.Event{Name: "/nowhere", Op: fsnotify.Create}
				}
				sleepUntil(tc.end)
				cancel()
				close(in.Events) // like fsnotify on Close
				running.Wait()
				if !slices.Equal(got, tc.want) {
					t.Errorf("read at %v ms, want %v", got, tc.want)
				}
			})
		})
	}
}

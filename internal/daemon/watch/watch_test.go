// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trousseau-io/trousseau/internal/daemon/watch"
)

func TestSameBytesAreSilent(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "one")
	var r reader
	core, logs := observer.New(zap.DebugLevel)
	w := start(t, options{
		Path: root.at("etc/config.yaml"), Read: r.read, Poll: time.Hour, Logger: zap.New(core),
	})
	received := collect(t, w)
	eventually(t, "the first content was received", func() bool { return len(received()) == 1 })

	same := []func(){
		func() { root.render("etc/config.yaml", "one") },
		func() { root.must(os.Chtimes(root.at("etc/config.yaml"), time.Time{}, time.Unix(1, 0))) },
		func() { root.must(os.Chmod(root.at("etc/config.yaml"), 0o640)) },
		w.Look,
	}
	for i, change := range same {
		before := r.reads()
		change()
		eventually(t, fmt.Sprintf("change %d caused a look", i), func() bool { return r.reads() > before })
	}

	root.render("etc/config.yaml", "two")
	eventually(t, "the change was received", func() bool { return len(received()) > 1 })
	if got, want := received(), []string{"one", "two"}; !slices.Equal(got, want) {
		t.Errorf("received %q, want %q", got, want)
	}
	if got := logs.All(); len(got) != 0 {
		t.Errorf("logged %v, want nothing", got)
	}
}

func TestLatestWins(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "one")
	var r reader
	w := start(t, options{Path: root.at("etc/config.yaml"), Read: r.read, Poll: time.Hour})
	receive(t, w)

	for _, data := range []string{"two", "three", "four"} {
		root.render("etc/config.yaml", data)
		eventually(t, "the watcher read "+data, r.saw(data))
	}
	before := r.reads()
	w.Look() // finding the same bytes again must not discard the pending value
	eventually(t, "the watcher looked", func() bool { return r.reads() > before })
	if got := held(receive(t, w)); got != "four" {
		t.Errorf("received %q, want only the newest, %q", got, "four")
	}
}

// A value that the receiver already has is not sent again, even if it missed another
// value in between.
func TestBackToWhatWasReceived(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "one")
	var r reader
	w := start(t, options{Path: root.at("etc/config.yaml"), Read: r.read, Poll: 10 * time.Millisecond})
	receive(t, w)

	for _, data := range []string{"two", "one"} {
		root.render("etc/config.yaml", data)
		eventually(t, "the watcher read "+data, r.saw(data))
	}
	received := collect(t, w)
	for range 20 { // each time, the watcher could send
		before := r.reads()
		eventually(t, "the watcher looked", func() bool { return r.reads() > before })
	}
	if got := received(); len(got) != 0 {
		t.Errorf("received %q, want nothing", got)
	}
}

func TestLook(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "one")
	// Neither polling nor a notification will follow.
	w := start(t, options{Path: root.at("etc/config.yaml"), Poll: time.Hour, Quiet: time.Hour})
	receive(t, w)

	for _, data := range []string{"two", "three"} {
		root.render("etc/config.yaml", data)
		w.Look()
		if got := held(receive(t, w)); got != data {
			t.Errorf("received %q, want %q", got, data)
		}
	}
}

// Looks that are asked for are a second apart and none is lost; the poll goes on as before.
func TestLookAtMostOnceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var looks []int // ms since the start
		w := start(t, options{
			Path: "/nowhere/config.yaml", Poll: 5 * time.Second,
			Read: func(string) ([]byte, error) {
				looks = append(looks, int(time.Since(began).Milliseconds()))
				return nil, nil
			},
		}.WithNotify(exhausted))
		receive(t, w)

		for ms := 4500; ms < 6900; ms += 100 {
			time.Sleep(time.Duration(ms)*time.Millisecond - time.Since(began))
			w.Look()
		}
		time.Sleep(9500*time.Millisecond - time.Since(began))
		w.Look()
		synctest.Wait()
		if want := []int{0, 4500, 5000, 5500, 6500, 7500, 9500}; !slices.Equal(looks, want) {
			t.Errorf("looked at %v ms, want %v", looks, want)
		}
	})
}

func TestLookNeverBlocks(t *testing.T) {
	t.Parallel()
	w := watch.New(options{Path: "/nowhere/config.yaml"})
	for range 100 { // the watcher is not running
		w.Look()
	}
}

func TestBurstEndsWithTheLast(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "start")
	w := start(t, options{Path: root.at("etc/config.yaml"), Poll: time.Hour})
	receive(t, w)

	for i := range 1000 {
		root.write("etc/config.yaml", fmt.Sprint(i))
	}
	await(t, w, "999")
}

func TestTruncatedFileIsNotRead(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "one")
	patient := start(t, options{Path: root.at("etc/config.yaml"), Poll: time.Hour, Quiet: 3 * time.Second})
	hasty := start(t, options{Path: root.at("etc/config.yaml"), Poll: time.Hour, Quiet: time.Nanosecond})
	received := collect(t, patient)
	eventually(t, "the first content was received", func() bool { return len(received()) == 1 })
	receive(t, hasty)

	root.must(os.Truncate(root.at("etc/config.yaml"), 0))
	await(t, hasty, "") // so the notification has arrived
	root.append("etc/config.yaml", "two")
	eventually(t, "the change was received", func() bool { return len(received()) > 1 })
	if got, want := received(), []string{"one", "two"}; !slices.Equal(got, want) {
		t.Errorf("received %q, want %q", got, want)
	}
}

// A change directly after the read must be noticed, even after the very first one.
func TestChangeRightAfterRead(t *testing.T) {
	t.Parallel()
	for _, changed := range []string{"etc/config.yaml", "tls/key"} {
		t.Run(changed, func(t *testing.T) {
			t.Parallel()
			root := newDir(t)
			root.write("etc/config.yaml", "one")
			root.write("tls/key", "one")
			var once sync.Once
			w := start(t, options{
				Path: root.at("etc/config.yaml"),
				Parse: opening(func(string) []string {
					return []string{root.at("etc/config.yaml"), root.at("tls/key")}
				}),
				Read: func(name string) ([]byte, error) {
					data, err := os.ReadFile(name)
					if name == root.at(changed) {
						once.Do(func() { root.write(changed, "two") })
					}
					return data, err
				},
				Poll: time.Hour,
			})
			awaitOpen(t, w, root.at(changed), "two")
		})
	}
}

func TestDirectoryReplacedOverAndOver(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "start")
	core, logs := observer.New(zap.DebugLevel)
	w := start(t, options{
		Path: root.at("etc/config.yaml"), Poll: time.Millisecond, Quiet: time.Millisecond, Logger: zap.New(core),
	})
	received := collect(t, w)

	// Each look adds and removes watches while fsnotify uses them.
	for i := range 50 {
		root.write("new/config.yaml", fmt.Sprint(i))
		root.rename("etc", "old")
		root.rename("new", "etc")
		root.remove("old")
		root.write("etc/config.yaml", fmt.Sprint(i, " changed"))
	}
	eventually(t, "the last content was received", func() bool {
		got := received()
		return len(got) > 0 && got[len(got)-1] == "49 changed"
	})
	if got := logs.All(); len(got) != 0 {
		t.Errorf("logged %v, want nothing", got) // a missing directory is not a fault
	}
}

// Not parallel: it counts goroutines and files of the whole process.
func TestRunLeavesNothing(t *testing.T) {
	others := goleak.IgnoreCurrent()
	root := newDir(t)
	root.write("etc/config.yaml", "one")
	root.write("keys/key", "two")
	run := func() {
		w := watch.New(options{
			Path:  root.at("etc/config.yaml"),
			Parse: opening(func(string) []string { return []string{root.at("keys/key")} }),
			Read:  os.ReadFile,
			Quiet: time.Millisecond,
		})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.Run(ctx)
		}()
		receive(t, w)
		for i := range 10 { // so that it ends with pending events
			root.write("etc/config.yaml", fmt.Sprint(i))
		}
		cancel()
		select {
		case <-done:
		case <-time.After(bound):
			t.Fatalf("Run did not return within %v", bound)
		}
	}

	run() // the runtime opens its own descriptors on first use
	before := descriptors(t)
	for range 20 {
		run()
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, want %d", after, before)
	}
	goleak.VerifyNone(t, others)
}

func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

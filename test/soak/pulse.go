// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	harness "github.com/trousseau-io/trousseau/test/harness/load"
)

const (
	beat = 50 * time.Millisecond
	// remembered is how long it is known what was lost: longer than a request.
	remembered = 10 * time.Second
)

// pulse knows for how long the machine has kept trousseau, or the soak itself,
// from running although it could have: the processors were taken, or the whole
// machine stood still. What fails for that is no fault of trousseau's. It is safe
// for concurrent use.
type pulse struct {
	pid func() int // of trousseau

	mu      sync.Mutex
	last    time.Time
	losses  []loss
	waited  map[string]time.Duration // by thread of trousseau's, so far
	longest time.Duration            // of what was lost in one beat
}

// loss is time lost up to a moment.
type loss struct {
	at   time.Time
	lost time.Duration
}

// run looks until ctx is done.
func (p *pulse) run(ctx context.Context) {
	p.mu.Lock()
	p.last = time.Now()
	p.mu.Unlock()
	harness.Every(ctx, beat, p.look)
}

func (p *pulse) look() {
	daemon := p.waiting()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	lost := max(now.Sub(p.last)-beat, daemon)
	p.last = now
	p.longest = max(p.longest, lost)
	p.losses = append(p.losses, loss{now, lost})
	for now.Sub(p.losses[0].at) > remembered {
		p.losses = p.losses[1:]
	}
}

// waiting is how long the thread of trousseau's that had to wait longest for a
// processor has waited since the last time. It is the second number in schedstat
// (Documentation/scheduler/sched-stats.rst in Linux), in nanoseconds. A kernel
// without it counts as one that lets nobody wait.
func (p *pulse) waiting() (longest time.Duration) {
	// The pattern is well-formed, which is the only error.
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.pid()))
	waited := make(map[string]time.Duration, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // The thread is gone.
		}
		var running, waiting int64
		if n, _ := fmt.Sscan(string(text), &running, &waiting); n < 2 {
			continue
		}
		waited[file] = time.Duration(waiting)
		if before, known := p.waited[file]; known {
			longest = max(longest, waited[file]-before)
		}
	}
	p.waited = waited
	return longest
}

// lost is how much of the time since then was lost.
func (p *pulse) lost(since time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	// What has not been looked at yet is lost if it is long.
	sum := max(0, time.Since(p.last)-beat)
	for _, l := range p.losses {
		if l.at.After(since) {
			sum += l.lost
		}
	}
	return sum
}

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
	// remembered is how long losses are kept: longer than a request.
	remembered = 10 * time.Second
)

// pulse measures how long the machine has kept trousseau or the soak from running:
// the CPUs were busy, or the whole machine was paused. trousseau is not to blame for
// failures caused by that. It is safe for concurrent use.
type pulse struct {
	pid func() int // of trousseau

	mu      sync.Mutex
	last    time.Time
	losses  []loss
	waited  map[string]time.Duration // by trousseau's threads, so far
	longest time.Duration            // time lost in one interval
}

// loss is the time lost before a moment.
type loss struct {
	at   time.Time
	lost time.Duration
}

// run measures until ctx is done.
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

// waiting returns the longest time that any of trousseau's threads has waited for a
// CPU since the last call. It is the second number in schedstat
// (Documentation/scheduler/sched-stats.rst in Linux), in nanoseconds. On a kernel
// without schedstat it is 0.
func (p *pulse) waiting() (longest time.Duration) {
	// The only possible error is a malformed pattern.
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.pid()))
	waited := make(map[string]time.Duration, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
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

// lost returns how much time was lost since a moment.
func (p *pulse) lost(since time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A long time since the last measurement counts as lost.
	sum := max(0, time.Since(p.last)-beat)
	for _, l := range p.losses {
		if l.at.After(since) {
			sum += l.lost
		}
	}
	return sum
}

// SPDX-License-Identifier: Apache-2.0

// Package load makes traffic at a pace and counts what becomes of it.
package load

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Every calls step once each interval, never twice at the same time, until ctx is
// done.
func Every(ctx context.Context, interval time.Duration, step func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			step()
		}
	}
}

// Workers repeat steps until they are stopped. Its methods may be called
// concurrently.
type Workers struct {
	running context.Context
	stop    context.CancelFunc
	steps   sync.WaitGroup
}

// NewWorkers returns workers with nothing to do yet.
func NewWorkers() *Workers {
	w := new(Workers)
	w.running, w.stop = context.WithCancel(context.Background())
	return w
}

// Go adds a worker that calls step once each interval.
func (w *Workers) Go(interval time.Duration, step func()) {
	w.steps.Go(func() { Every(w.running, interval, step) })
}

// Stop lets the steps under way finish.
func (w *Workers) Stop() {
	w.stop()
	w.steps.Wait()
}

// Count is what became of operations of one kind.
type Count struct {
	Operations, Failures int
	// First is the first failure's error.
	First error
	// FirstFailure and LastFailure are when such operations ended.
	FirstFailure, LastFailure time.Time
	// Longest is the longest time that one took, failed or not.
	Longest time.Duration
}

// Add counts an operation.
func (c *Count) Add(began, ended time.Time, err error) {
	c.Operations++
	c.Longest = max(c.Longest, ended.Sub(began))
	if err == nil {
		return
	}
	if c.Failures == 0 {
		c.First, c.FirstFailure = err, ended
	}
	c.Failures++
	c.LastFailure = ended
}

func (c Count) String() string {
	if c.Failures == 0 {
		return fmt.Sprintf("0 of %d failed, the longest took %s", c.Operations, c.Longest.Round(time.Millisecond))
	}
	return fmt.Sprintf("%d of %d failed within %s, the longest took %s; the first: %v", c.Failures, c.Operations,
		c.LastFailure.Sub(c.FirstFailure).Round(time.Millisecond), c.Longest.Round(time.Millisecond), c.First)
}

// Counter is a [Count] that is safe for concurrent use.
type Counter struct {
	mu    sync.Mutex
	count Count
}

// Do makes one operation within timeout and counts it.
func (c *Counter) Do(ctx context.Context, timeout time.Duration, operation func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now()
	err := operation(ctx)
	ended := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count.Add(began, ended, err)
	return err
}

// Count returns what has been counted so far.
func (c *Counter) Count() Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// Mark is Count, after which Longest starts again from zero.
func (c *Counter) Mark() Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.count
	c.count.Longest = 0
	return before
}

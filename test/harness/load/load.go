// SPDX-License-Identifier: Apache-2.0

// Package load generates load at a fixed pace and counts the results.
package load

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Every calls step once per interval until ctx is done. Calls never overlap.
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

// Workers run steps repeatedly until stopped. Its methods may be called
// concurrently.
type Workers struct {
	running context.Context
	stop    context.CancelFunc
	steps   sync.WaitGroup
}

// NewWorkers returns Workers without any worker.
func NewWorkers() *Workers {
	w := new(Workers)
	w.running, w.stop = context.WithCancel(context.Background())
	return w
}

// Go adds a worker that calls step once per interval.
func (w *Workers) Go(interval time.Duration, step func()) {
	w.steps.Go(func() { Every(w.running, interval, step) })
}

// Stop ends all workers and waits for running steps to finish.
func (w *Workers) Stop() {
	w.stop()
	w.steps.Wait()
}

// Count summarizes the results of one kind of operation.
type Count struct {
	Operations, Failures int
	// First is the error of the first failure.
	First error
	// FirstFailure and LastFailure are the times at which the first and the last
	// failed operation ended.
	FirstFailure, LastFailure time.Time
	// Longest is the duration of the slowest operation, failed or not.
	Longest time.Duration
}

// Add counts one operation.
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

// Do runs one operation with a timeout and counts it.
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

// Count returns the counts so far.
func (c *Counter) Count() Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// Mark returns the counts so far and resets Longest to zero.
func (c *Counter) Mark() Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.count
	c.count.Longest = 0
	return before
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// callTimeout is the default timeout of EncryptionConfiguration.
const callTimeout = 3 * time.Second

// call makes one request. Concurrent calls have different callers; n numbers a
// caller's calls.
type call func(ctx context.Context, caller, n int) error

// sample is the result of one turn.
type sample struct {
	calls    int // answered
	p50, p99 time.Duration
	longest  time.Duration
	rate     float64       // calls a second
	vaultCPU time.Duration // per call
	failed   int
	failure  error // the last one
}

// drive runs callers, each making one call after another, for some time.
func drive(ctx context.Context, callers int, within time.Duration, call call) (sample, error) {
	took := make([][]time.Duration, callers)
	failures := make([][]error, callers)
	all, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for caller := range callers {
		all.Go(func() error {
			for n := 0; time.Since(began) < within; n++ {
				start := time.Now()
				if err := bounded(ctx, caller, n, call); err != nil {
					failures[caller] = append(failures[caller], err)
					continue
				}
				took[caller] = append(took[caller], time.Since(start))
			}
			return ctx.Err()
		})
	}
	if err := all.Wait(); err != nil {
		return sample{}, err
	}
	elapsed := time.Since(began)
	var flat []time.Duration
	for _, t := range took {
		flat = append(flat, t...)
	}
	s := sample{
		calls:   len(flat),
		p50:     quantile(flat, 0.5),
		p99:     quantile(flat, 0.99),
		longest: quantile(flat, 1),
		rate:    float64(len(flat)) / elapsed.Seconds(),
	}
	for _, f := range failures {
		if len(f) > 0 {
			s.failed, s.failure = s.failed+len(f), f[len(f)-1]
		}
	}
	return s, nil
}

func bounded(ctx context.Context, caller, n int, call call) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx, caller, n)
}

// once is the result of calls that were each made once.
type once struct {
	took    time.Duration // for all
	failed  int
	failure error // one of them
}

// each calls work for 0 to n-1, by some workers that begin at the same time.
func each(ctx context.Context, n, workers int, work func(ctx context.Context, i int) error) once {
	var result once
	var next atomic.Int64
	var mu sync.Mutex
	var all sync.WaitGroup
	begin := make(chan struct{})
	for range workers {
		all.Go(func() {
			<-begin
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := work(ctx, i); err != nil {
					mu.Lock()
					result.failed, result.failure = result.failed+1, err
					mu.Unlock()
				}
			}
		})
	}
	began := time.Now()
	close(begin)
	all.Wait()
	result.took = time.Since(began)
	return result
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/trousseau-io/trousseau/internal/seed"
)

func parallelChecks() []Check {
	const group = "parallel"
	return []Check{
		{
			Name: "parallel-seeds", Group: group, Level: Must,
			Rule:   "Many concurrent Decrypts of different seeds all return the right seed.",
			Source: sourceDocs + "Decryption: thousands at the start of kube-apiserver",
			needs:  []string{roundTrips}, run: checkParallelSeeds,
		},
		{
			Name: "parallel-same-seed", Group: group, Level: Must,
			Rule:   "Many concurrent Decrypts of the same seed all return it.",
			Source: sourceEnvelope + "TransformFromStorage: each cache miss is a call, without waiting for others",
			needs:  []string{roundTrips}, run: checkParallelSameSeed,
		},
		{
			Name: "parallel-status", Group: group, Level: Must,
			Rule:   "Status is answered within the timeout while seeds are encrypted.",
			Source: sourceProbe + "kmsv2PluginProbe.check: /readyz waits for it",
			needs:  []string{statusAnswers, roundTrips}, run: checkParallelStatus,
		},
	}
}

// inParallel calls f for 0 to n-1, at most width at a time, and returns their
// errors.
func inParallel(n, width int, f func(i int) error) []error {
	var mu sync.Mutex
	var errs []error
	var all sync.WaitGroup
	slots := make(chan struct{}, width)
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := f(i); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	return errs
}

// together is the outcome of concurrent Decrypts.
func together(n int, errs []error) outcome {
	mixed := 0
	for _, err := range errs {
		if errors.Is(err, errOtherBytes) {
			mixed++
		}
	}
	switch {
	case mixed > 0:
		return broken("Share only the key between requests. If one answer serves several requests, give each its own copy.", "%d of %d Decrypts return other bytes than were encrypted", mixed, n)
	case len(errs) > 0:
		return broken("Answer requests concurrently, and allow as many calls to the remote KMS as a starting kube-apiserver needs.", "%d of %d fail, the first with %v", len(errs), n, errs[0])
	}
	return pass("%d concurrent", n)
}

func checkParallelSeeds(ctx context.Context, s *subject) outcome {
	const seeds = 48
	// kube-apiserver encrypts one seed at a time; a few of them may share a plugin.
	const encrypting = 4
	var plaintexts [seeds][]byte
	var wrapped [seeds]seed.Wrapped
	if errs := inParallel(seeds, encrypting, func(i int) (err error) {
		plaintexts[i], wrapped[i], err = s.main.sample(ctx)
		return err
	}); len(errs) > 0 {
		return broken("Answer requests concurrently.", "%d of %d fail when %d are concurrent, the first with %v", len(errs), seeds, encrypting, errs[0])
	}
	return together(seeds, inParallel(seeds, seeds, func(i int) error { return s.main.gives(ctx, wrapped[i], plaintexts[i]) }))
}

func checkParallelSameSeed(ctx context.Context, s *subject) outcome {
	const times = 128
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
	return together(times, inParallel(times, times, func(int) error { return s.main.gives(ctx, w, plaintext) }))
}

func checkParallelStatus(ctx context.Context, s *subject) outcome {
	const workers, times = 8, 10
	var all sync.WaitGroup
	defer all.Wait()
	begun, end := make(chan struct{}, workers), make(chan struct{})
	defer close(end)
	for range workers {
		all.Go(func() {
			begun <- struct{}{}
			for {
				select {
				case <-end:
					return
				default:
				}
				if _, _, err := s.main.sample(ctx); err != nil {
					return
				}
			}
		})
	}
	for range workers {
		<-begun
	}
	var slowest time.Duration
	for range times {
		start := time.Now()
		if _, err := s.main.status(ctx); err != nil {
			return broken("Answer Status from memory: it must not wait for other requests or for the remote KMS.", "%s", said(err))
		}
		slowest = max(slowest, time.Since(start))
	}
	return pass("%s at most, %d times", rounded(slowest), times)
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"time"
)

func abandonChecks() []Check {
	const group = "deadline"
	return []Check{
		{
			Name: "deadline-short", Group: group, Level: Must,
			Rule:   "Requests whose deadline passes keep no later one from being answered.",
			Source: sourceClient + "gRPCService.Encrypt: each call has a deadline",
			needs:  []string{roundTrips}, run: checkShortDeadline,
		},
		{
			Name: "deadline-cancelled", Group: group, Level: Must,
			Rule:   "Requests that are cancelled keep no later one from being answered.",
			Source: sourceEnvelope + "TransformFromStorage: Decrypt ends when the client of kube-apiserver goes away",
			needs:  []string{roundTrips}, run: checkCancelled,
		},
	}
}

const (
	// abandoned is how many requests are given up, each step later than the one
	// before, so that they are given up in different places.
	abandoned = 32
	step      = 500 * time.Microsecond
)

const adviceAbandoned = "End a request when its context is done, and give back then what it holds: locks, slots, connections."

func checkShortDeadline(ctx context.Context, s *subject) outcome {
	_ = inParallel(abandoned, abandoned, func(i int) error {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(i+1)*step)
		defer cancel()
		_, err := s.main.encrypt(ctx, s.newSeed())
		return err
	})
	return stillWorks(ctx, s.main)
}

func checkCancelled(ctx context.Context, s *subject) outcome {
	_, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
	request := decryptRequest(w)
	_ = inParallel(abandoned, abandoned, func(i int) error {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		defer time.AfterFunc(time.Duration(i+1)*step, cancel).Stop()
		_, err := s.main.kms.Decrypt(ctx, request)
		return err
	})
	return stillWorks(ctx, s.main)
}

// stillWorks is the outcome after requests that were given up. Some of them may
// have been answered before.
func stillWorks(ctx context.Context, c *caller) outcome {
	start := time.Now()
	if err := c.roundTrip(ctx); err != nil {
		return broken(adviceAbandoned, "after %d of them: %v", abandoned, err)
	}
	return pass("after %d of them, a round trip in %s", abandoned, rounded(time.Since(start)))
}

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
			Rule:   "After requests whose deadline has passed, later requests are still answered.",
			Source: sourceClient + "gRPCService.Encrypt: each call has a deadline",
			needs:  []string{roundTrips}, run: checkShortDeadline,
		},
		{
			Name: "deadline-cancelled", Group: group, Level: Must,
			Rule:   "After cancelled requests, later requests are still answered.",
			Source: sourceEnvelope + "TransformFromStorage: Decrypt ends when kube-apiserver's client disconnects",
			needs:  []string{roundTrips}, run: checkCancelled,
		},
	}
}

const (
	// abandoned is how many requests are cancelled, each step later than the previous
	// one, so that they end in different places.
	abandoned = 32
	step      = 500 * time.Microsecond
)

const adviceAbandoned = "End a request when its context is done, and then release its locks, slots and connections."

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

// stillWorks is the outcome after cancelled requests. Some of them may have been
// answered before.
func stillWorks(ctx context.Context, c *caller) outcome {
	start := time.Now()
	if err := c.roundTrip(ctx); err != nil {
		return broken(adviceAbandoned, "after %d such requests: %v", abandoned, err)
	}
	return pass("after %d such requests, a round trip takes %s", abandoned, rounded(time.Since(start)))
}

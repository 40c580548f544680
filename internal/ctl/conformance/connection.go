// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
)

func connectionChecks() []Check {
	const group = "connection"
	return []Check{
		{
			Name: "connection-cut", Group: group, Level: Must,
			Rule:   "When a connection ends in the middle of a request, the next one works.",
			Source: sourceClient + "NewGRPCService: kube-apiserver connects again by itself",
			needs:  []string{roundTrips}, run: checkCut,
		},
		{
			Name: "connection-many", Group: group, Level: Must,
			Rule:   "16 connections work side by side.",
			Source: sourceProbe + "prefixTransformersAndProbes: one for each provider, and twice as many during a reload",
			needs:  []string{roundTrips}, run: checkMany,
		},
		{
			Name: "connection-silent", Group: group, Level: Must,
			Rule:   "A connection on which nothing is said keeps no other one from working.",
			Source: "whoever may connect may do so",
			needs:  []string{roundTrips}, run: checkSilent,
		},
	}
}

// fuse is a connection that is cut some time after a certain text has been
// written to it.
type fuse struct {
	net.Conn
	text  []byte
	after time.Duration
}

func (f fuse) Write(p []byte) (int, error) {
	n, err := f.Conn.Write(p)
	if bytes.Contains(p, f.text) {
		time.AfterFunc(f.after, func() { _ = f.Close() })
	}
	return n, err
}

func checkCut(ctx context.Context, s *subject) outcome {
	const advice = "Give back what a request holds when its connection is gone."
	// Each cut is later than the one before, so that they meet a request in
	// different places.
	const cuts = 6
	for i := range cuts {
		plaintext := s.newSeed()
		o := s.onNewConnection(func(c *caller) outcome {
			if err := c.roundTrip(ctx); err != nil {
				return broken(advice, "after %d cuts: %v", i, err)
			}
			_, _ = c.encrypt(ctx, plaintext) // may be answered before the cut
			return pass("")
		}, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := s.endpoint.dial(ctx)
			return fuse{conn, plaintext, time.Duration(i) * time.Millisecond}, err
		}))
		if o.result != Pass {
			return o
		}
	}
	return s.onNewConnection(func(c *caller) outcome {
		if err := c.roundTrip(ctx); err != nil {
			return broken(advice, "after %d cuts: %v", cuts, err)
		}
		return pass("%d times", cuts)
	})
}

func checkMany(ctx context.Context, s *subject) outcome {
	const many = 16
	callers := make([]*caller, many)
	for i := range callers {
		c, err := s.connect()
		if err != nil {
			return broken("", "cannot connect: %v", err)
		}
		defer c.close()
		callers[i] = c
	}
	// Twice, so that all are there before the first is done.
	for range 2 {
		if errs := inParallel(many, many, func(i int) error { return callers[i].roundTrip(ctx) }); len(errs) > 0 {
			return broken("Allow more connections.", "on %d of %d: %v", len(errs), many, errs[0])
		}
	}
	return pass("%d connections", many)
}

func checkSilent(ctx context.Context, s *subject) outcome {
	silent, err := s.endpoint.dial(ctx)
	if err != nil {
		return broken("", "cannot connect: %v", err)
	}
	defer silent.Close()
	return s.onNewConnection(func(c *caller) outcome {
		if err := c.roundTrip(ctx); err != nil {
			return broken("Let each connection have a thread of its own from the moment it is accepted.", "%v", err)
		}
		return pass("another one works")
	})
}

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
			Rule:   "After a connection breaks during a request, the next one works.",
			Source: sourceClient + "NewGRPCService: kube-apiserver reconnects automatically",
			needs:  []string{roundTrips}, run: checkCut,
		},
		{
			Name: "connection-many", Group: group, Level: Must,
			Rule:   "16 connections work at the same time.",
			Source: sourceProbe + "prefixTransformersAndProbes: one for each provider, and twice as many during a reload",
			needs:  []string{roundTrips}, run: checkMany,
		},
		{
			Name: "connection-silent", Group: group, Level: Must,
			Rule:   "An idle connection does not block others.",
			Source: "any client that can connect can do so",
			needs:  []string{roundTrips}, run: checkSilent,
		},
	}
}

// fuse is a connection that closes a given time after text was written to it.
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
	const advice = "Release what a request holds when its connection is closed."
	// Each cut is later than the previous one, to hit a request in different places.
	const cuts = 6
	for i := range cuts {
		plaintext := s.newSeed()
		o := s.onNewConnection(func(c *caller) outcome {
			if err := c.roundTrip(ctx); err != nil {
				return broken(advice, "after %d broken connections: %v", i, err)
			}
			_, _ = c.encrypt(ctx, plaintext) // may be answered before the cut
			return pass("")
		}, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := s.endpoint.Dial(ctx)
			return fuse{conn, plaintext, time.Duration(i) * time.Millisecond}, err
		}))
		if o.result != Pass {
			return o
		}
	}
	return s.onNewConnection(func(c *caller) outcome {
		if err := c.roundTrip(ctx); err != nil {
			return broken(advice, "after %d broken connections: %v", cuts, err)
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
	// Twice: in the second round all connections are open.
	for range 2 {
		if errs := inParallel(many, many, func(i int) error { return callers[i].roundTrip(ctx) }); len(errs) > 0 {
			return broken("Allow more connections.", "on %d of %d: %v", len(errs), many, errs[0])
		}
	}
	return pass("%d connections", many)
}

func checkSilent(ctx context.Context, s *subject) outcome {
	silent, err := s.endpoint.Dial(ctx)
	if err != nil {
		return broken("", "cannot connect: %v", err)
	}
	defer silent.Close()
	return s.onNewConnection(func(c *caller) outcome {
		if err := c.roundTrip(ctx); err != nil {
			return broken("Serve each connection in its own thread as soon as it is accepted.", "%v", err)
		}
		return pass("another connection works")
	})
}

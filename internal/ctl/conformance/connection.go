// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"iter"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/trousseau-io/trousseau/internal/seed"
)

func connectionChecks() []Check {
	return inGroup("connection",
		must("connection-cut", "After a connection breaks during a request, the next one works.",
			sourceClient+"NewGRPCService: kube-apiserver reconnects automatically", checkCut, roundTrips),
		must("connection-many", "16 connections work at the same time.",
			sourceProbe+"prefixTransformersAndProbes: one for each provider, and twice as many during a reload", checkMany, roundTrips),
		must("connection-silent", "An idle connection does not block others.",
			"any client that can connect can do so", checkSilent, roundTrips),
	)
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

func abandonChecks() []Check {
	return inGroup("deadline",
		must("deadline-short", "After requests whose deadline has passed, later requests are still answered.",
			sourceClient+"gRPCService.Encrypt: each call has a deadline", checkShortDeadline, roundTrips),
		must("deadline-cancelled", "After cancelled requests, later requests are still answered.",
			sourceEnvelope+"TransformFromStorage: Decrypt ends when kube-apiserver's client disconnects", sampled(checkCancelled), roundTrips),
	)
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

func checkCancelled(ctx context.Context, s *subject, _ []byte, w seed.Wrapped) outcome {
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

func parallelChecks() []Check {
	return inGroup("parallel",
		must("parallel-seeds", "Many concurrent Decrypts of different seeds all return the right seed.",
			sourceDocs+"Decryption: thousands at the start of kube-apiserver", checkParallelSeeds, roundTrips),
		must("parallel-same-seed", "Many concurrent Decrypts of the same seed all return it.",
			sourceEnvelope+"TransformFromStorage: each cache miss is a call, without waiting for others", sampled(checkParallelSameSeed), roundTrips),
		must("parallel-status", "Status is answered within the timeout while seeds are encrypted.",
			sourceProbe+"kmsv2PluginProbe.check: /readyz waits for it", checkParallelStatus, statusAnswers, roundTrips),
	)
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

func checkParallelSameSeed(ctx context.Context, s *subject, plaintext []byte, w seed.Wrapped) outcome {
	const times = 128
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

func socketChecks() []Check {
	return inGroup("socket",
		should("socket-mode", "Not every user of the host can connect: anyone who can may decrypt every seed.",
			sourceDocs+"protocol; unix(7), Pathname socket ownership and permissions", checkSocketMode),
		should("socket-directory", "Not every user of the host can replace the socket.",
			"unix(7), Pathname socket ownership and permissions", checkSocketDirectory),
	)
}

// What others than owner and group may do.
const (
	othersWrite  fs.FileMode = 0o002
	othersSearch fs.FileMode = 0o001
)

func checkSocketMode(_ context.Context, s *subject) outcome {
	if s.endpoint.Abstract() {
		return broken("Use a socket with a path: an abstract socket has no owner and no mode, and every process in the network namespace can connect.", "the socket is abstract")
	}
	info, err := os.Stat(s.endpoint.Address())
	if err != nil {
		return broken("Run this where kube-apiserver runs.", "%v", err)
	}
	mode := info.Mode().Perm()
	if mode&othersWrite == 0 {
		return pass("%#o", mode)
	}
	for dir := range parents(s.endpoint.Address()) {
		info, err := os.Stat(dir)
		if err != nil {
			return broken("Run this where kube-apiserver runs.", "%v", err)
		}
		if info.Mode()&othersSearch == 0 {
			return pass("%#o, in %s with %#o", mode, dir, info.Mode().Perm())
		}
	}
	return broken("Set the mode 0600, or 0660 with the group of kube-apiserver.", "%#o, and every user can reach it", mode)
}

func checkSocketDirectory(_ context.Context, s *subject) outcome {
	if s.endpoint.Abstract() {
		return skip("the socket is abstract")
	}
	direct := true
	for dir := range parents(s.endpoint.Address()) {
		info, err := os.Stat(dir)
		if err != nil {
			return broken("Run this where kube-apiserver runs.", "%v", err)
		}
		// In a sticky directory other users cannot rename or remove the socket, but
		// they can create one before the plugin starts.
		sticky := info.Mode()&fs.ModeSticky != 0
		if info.Mode()&othersWrite != 0 && (direct || !sticky) {
			return broken("Use a separate directory below /run, with mode 0750.", "every user can write to %s (%s)", dir, info.Mode())
		}
		direct = false
	}
	return pass("%s", filepath.Dir(s.endpoint.Address()))
}

// parents yields the directories above path, the nearest first.
func parents(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for dir := filepath.Dir(path); yield(dir) && dir != "/"; dir = filepath.Dir(dir) {
		}
	}
}

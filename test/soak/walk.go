// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/test/harness/pages"
)

// soak is one run and its results.
type soak struct {
	seed     uint64
	out      io.Writer
	plan     *plan
	stage    *stage
	load     *load
	client   kmsapi.KeyManagementServiceClient
	pages    *pages.Client
	peace    peace
	pulse    pulse
	evidence evidence
	busy     [subjects]sync.Mutex

	failing chan error // the first violation is enough

	began    time.Time
	history  history
	longest  recovery
	unwell   error     // why trousseau was unhealthy at the last check
	measured int       // number of the process that before belongs to
	before   footprint // of that process, in its first calm
	searched int64     // bytes of the log already searched
}

// recovery is how long trousseau took to become healthy again.
type recovery struct {
	took time.Duration
	step int // the last step before it
	why  error
}

func newSoak(binary string, seed uint64, out io.Writer) (*soak, error) {
	s := &soak{seed: seed, out: out, plan: newPlan(seed), failing: make(chan error, 1)}
	var err error
	if s.stage, err = newStage(binary, s.fail); err != nil {
		return nil, err
	}
	s.pulse.pid = func() int { pid, _ := s.stage.daemon.pid(); return pid }
	s.pages = pages.New(s.stage.daemon.ops.Addr)
	s.load = &load{
		socket: s.stage.daemon.socket,
		starts: func() int { _, n := s.stage.daemon.pid(); return n },
		peace:  &s.peace, pulse: &s.pulse, evidence: &s.evidence, ledger: newLedger(), secrets: s.stage.secrets, fail: s.fail, tally: newTally(),
	}
	if s.client, err = s.load.dial(); err != nil {
		return nil, errors.Join(err, s.close(true))
	}
	return s, nil
}

// fail ends the run with an error.
func (s *soak) fail(err error) {
	select {
	case s.failing <- err:
	default: // an earlier error has ended it
	}
}

// close ends everything and removes the files after a success.
func (s *soak) close(good bool) error {
	if !good {
		s.stage.daemon.dump()
	}
	s.load.close()
	return s.stage.close(good)
}

// walk alternates between storms and calms for the given duration. The error is a
// *violation if an invariant did not hold.
func (s *soak) walk(ctx context.Context, duration time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case err := <-s.failing:
			cancel(err)
		case <-ctx.Done():
		}
	}()
	s.began = time.Now()
	var beating sync.WaitGroup
	beating.Go(func() { s.pulse.run(ctx) })
	beating.Go(func() { s.evidence.watch(ctx, s.stage, s.fail) })
	defer beating.Wait()
	defer cancel(nil)
	err := s.rounds(ctx, duration)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (s *soak) rounds(ctx context.Context, duration time.Duration) error {
	if err := errors.Join(s.stage.daemon.start(), s.load.start()); err != nil {
		return err
	}
	if err := s.calm(ctx); err != nil {
		return err
	}
	for time.Since(s.began) < duration {
		// The faults of a storm overlap, so requests may fail.
		s.peace.end()
		if err := s.play(ctx, s.plan.storm()...); err != nil {
			return err
		}
		if err := s.calm(ctx); err != nil {
			return err
		}
		if err := s.play(ctx, s.plan.alone()); err != nil {
			return err
		}
		if err := s.calm(ctx); err != nil {
			return err
		}
	}
	return s.finish(ctx)
}

// calm waits for the recovery and then runs the checks for a while. After it, no
// request may fail until the next storm.
func (s *soak) calm(ctx context.Context) error {
	took, err := s.recovered(ctx)
	if err != nil {
		return err
	}
	if took > s.longest.took {
		s.longest = recovery{took, s.history.last(), s.unwell}
	}
	s.peace.begin()
	if err := sleep(ctx, s.plan.calm()); err != nil {
		return err
	}
	found, err := s.calmed(ctx)
	if err != nil {
		return err
	}
	s.say("well after %.1f s; %s", took.Seconds(), found)
	return nil
}

// finish decrypts everything once more, stops trousseau, and searches the whole log
// again, also for secrets that became known later.
func (s *soak) finish(ctx context.Context) error {
	s.load.halt()
	if _, err := s.load.sweep(ctx, s.client); err != nil {
		return err
	}
	s.peace.end()
	if err := s.stage.daemon.stop(); err != nil {
		return err
	}
	s.searched = 0
	return s.nothingLeaked()
}

// play executes the steps of a storm and returns when all have ended.
func (s *soak) play(ctx context.Context, storm ...step) error {
	s.history.add(storm, s.peace.number() != 0)
	began := time.Now()
	var all sync.WaitGroup
	errs := make([]error, len(storm))
	for i, step := range storm {
		all.Go(func() { errs[i] = s.take(ctx, began, step) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// take executes one step.
func (s *soak) take(ctx context.Context, began time.Time, step step) error {
	if sleep(ctx, time.Until(began.Add(step.at))) != nil {
		return nil
	}
	// The plan separates faults with the same subject unless one takes unexpectedly
	// long to begin or end.
	lock := &s.busy[step.fault.touches]
	lock.Lock()
	defer lock.Unlock()
	s.history.began(step, time.Since(s.began))
	end, err := step.fault.begin(s.stage, rand.New(rand.NewPCG(step.seed, 0)))
	if errors.Is(err, errSkipped) {
		s.history.skipped(step, err)
		return nil
	}
	if err == nil {
		// End the fault even if the soak is over.
		_ = sleep(ctx, step.lasts)
		err = end()
	}
	s.history.ended(step, time.Since(s.began))
	if v := (*violation)(nil); err != nil && !errors.As(err, &v) {
		return fmt.Errorf("step %d, %s: %w", step.number, step.fault.name, err)
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// say prints an event with the time since the start.
func (s *soak) say(format string, args ...any) {
	since := time.Since(s.began)
	fmt.Fprintf(s.out, "%s  step %3d: %s\n", clock(since), s.history.last(), fmt.Sprintf(format, args...))
}

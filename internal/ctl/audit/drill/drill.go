// SPDX-License-Identifier: Apache-2.0

// Package drill rehearses a disaster: it unwraps each DEK seed that objects in
// etcd depend on, to see whether they could be read today. A seed is unwrapped
// once, however many objects are under it, looked at for its length and
// forgotten.
package drill

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trousseau-io/trousseau/internal/seed"
)

// Seed is a wrapped DEK seed, or a wrapped DEK.
type Seed struct {
	seed.Wrapped
	// DEK says that it is a DEK, as kube-apiserver before 1.29 made them.
	DEK bool
}

// Unwrapper is who can unwrap seeds. It is called by several goroutines at once.
type Unwrapper interface {
	// Unwrap returns the seed, which the caller clears. An error that is not a
	// [*Failure] says nothing about the seed.
	Unwrap(ctx context.Context, wrapped seed.Wrapped) ([]byte, error)
}

// Verdict is what an attempt to unwrap a seed has shown.
type Verdict string

// The verdicts.
const (
	Readable Verdict = "readable"
	// Lost means that trying again will not help: as things are, what is under
	// the seed cannot be read.
	Lost Verdict = "lost"
	// Unknown means that who could have unwrapped the seed could not be asked,
	// or did not want to answer.
	Unknown Verdict = "unknown"
)

// Failure is why a seed was not unwrapped. Reason holds no secret.
type Failure struct {
	Verdict Verdict // Lost or Unknown
	Reason  string
	// Passing says that another attempt may fare better.
	Passing bool
}

func (f *Failure) Error() string { return f.Reason }

// Result is what became of one seed.
type Result struct {
	Verdict Verdict
	Reason  string // "" for Readable
}

// Options are how to go about it.
type Options struct {
	Unwrapper Unwrapper
	// Parallel is how many seeds are unwrapped at once; 0 means 16.
	Parallel int
	// Timeout bounds one attempt; 0 means 10 seconds.
	Timeout time.Duration
	// Pause is the time before the second attempt, doubled before the third; 0
	// means half a second.
	Pause time.Duration
	// Progress is told how many seeds are done; nil tells nobody.
	Progress func(done, total int)
}

const (
	attempts = 3
	// enough failures in a row, of those that pass, and the rest is not tried.
	enough = 48
)

// Run unwraps seeds and returns what became of each, in their order. Its error is
// ctx's.
func Run(ctx context.Context, opts Options, seeds []Seed) ([]Result, error) {
	if opts.Parallel == 0 {
		opts.Parallel = 16
	}
	if opts.Timeout == 0 {
		opts.Timeout = 10 * time.Second
	}
	if opts.Pause == 0 {
		opts.Pause = 500 * time.Millisecond
	}
	var (
		results  = make([]Result, len(seeds))
		inVain   atomic.Int64 // failures in a row that may pass
		mu       sync.Mutex
		finished int
	)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(opts.Parallel)
	for i, s := range seeds {
		group.Go(func() error {
			if inVain.Load() >= enough {
				results[i] = Result{Unknown, fmt.Sprintf("not tried, since %d attempts in a row had failed", enough)}
			} else {
				results[i] = opts.try(ctx, s, &inVain)
			}
			if opts.Progress != nil {
				mu.Lock()
				finished++
				opts.Progress(finished, len(seeds))
				mu.Unlock()
			}
			return ctx.Err()
		})
	}
	return results, group.Wait()
}

// try unwraps one seed, again if that may help.
func (o Options) try(ctx context.Context, s Seed, inVain *atomic.Int64) Result {
	pause := o.Pause
	for attempt := 1; ; attempt++ {
		err := o.unwrap(ctx, s)
		var failure *Failure
		switch {
		case err == nil:
			inVain.Store(0)
			return Result{Verdict: Readable}
		case !errors.As(err, &failure):
			failure = &Failure{Unknown, err.Error(), true}
		}
		if !failure.Passing {
			inVain.Store(0)
			return Result{failure.Verdict, failure.Reason}
		}
		if inVain.Add(1) >= enough || attempt == attempts || !sleep(ctx, pause) {
			return Result{failure.Verdict, failure.Reason}
		}
		pause *= 2
	}
}

func (o Options) unwrap(ctx context.Context, s Seed) error {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	plaintext, err := o.Unwrapper.Unwrap(ctx, s.Wrapped)
	defer clear(plaintext)
	if err != nil {
		return err
	}
	return usable(plaintext, s.DEK)
}

// usable reports why kube-apiserver could not use what was unwrapped
// (pkg/storage/value/encrypt/aes of k8s.io/apiserver).
func usable(plaintext []byte, dek bool) error {
	n := len(plaintext)
	switch {
	case dek && n != 16 && n != 24 && n != 32:
		return &Failure{Verdict: Lost, Reason: fmt.Sprintf("what was unwrapped has %d bytes, and is no AES key", n)}
	case !dek && n < 32:
		return &Failure{Verdict: Lost, Reason: fmt.Sprintf("what was unwrapped has %d bytes, and a seed 32", n)}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

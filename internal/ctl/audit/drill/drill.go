// SPDX-License-Identifier: Apache-2.0

// Package drill rehearses a restore: it unwraps each DEK seed that objects in etcd
// depend on, to find out whether the objects could be read now. It unwraps a seed
// once, however many objects depend on it, checks its length and clears it.
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

// Seed is a wrapped DEK seed or a wrapped DEK.
type Seed struct {
	seed.Wrapped
	// DEK is true for a DEK, which kube-apiserver before 1.29 wrote, and for KMS v1,
	// whose DEKs have no key_id.
	DEK bool
	// Foreign is true if Trousseau did not wrap it. What Vault unwraps may then be the
	// plugin's encoding of it, and its length says nothing.
	Foreign bool
}

// Unwrapper unwraps seeds. It must be safe for concurrent use.
type Unwrapper interface {
	// Unwrap returns the seed, which the caller clears. An error other than a
	// [*Failure] says nothing about the seed.
	Unwrap(ctx context.Context, wrapped seed.Wrapped) ([]byte, error)
}

// Verdict is the result of unwrapping a seed.
type Verdict string

// The verdicts.
const (
	// Readable means that the seed was unwrapped.
	Readable Verdict = "readable"
	// Lost means that the objects that depend on the seed cannot be read. A retry
	// does not help.
	Lost Verdict = "lost"
	// Unknown means that the unwrapper was unreachable or denied the call.
	Unknown Verdict = "unknown"
)

// Failure is why a seed was not unwrapped. Reason contains no secret.
type Failure struct {
	Verdict Verdict // Lost or Unknown
	Reason  string
	// Passing means that a retry may succeed.
	Passing bool
}

func (f *Failure) Error() string { return f.Reason }

// Result is the result for one seed.
type Result struct {
	Verdict Verdict
	Reason  string // "" for Readable
}

// Options configure [Run].
type Options struct {
	Unwrapper Unwrapper
	// Parallel is how many seeds are unwrapped concurrently; 0 means 16.
	Parallel int
	// Timeout bounds one attempt; 0 means 10 seconds.
	Timeout time.Duration
	// Pause precedes the second attempt, and is doubled before the third; 0 means
	// 500 ms.
	Pause time.Duration
	// Progress is called after each seed, by one goroutine at a time; nil is not
	// called.
	Progress func(done, total int)
}

const (
	attempts = 3
	// enough consecutive failures that a retry might cure end the run: the other
	// seeds are not tried.
	enough = 48
)

// Run unwraps the seeds and returns a Result for each, in the same order. Its error
// is that of ctx.
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
		inVain   atomic.Int64 // consecutive failures that a retry might cure
		mu       sync.Mutex
		finished int
	)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(opts.Parallel)
	for i, s := range seeds {
		group.Go(func() error {
			if inVain.Load() >= enough {
				results[i] = Result{Unknown, fmt.Sprintf("not tried: the %d attempts before it failed", enough)}
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

// try unwraps one seed, and retries if that may help.
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
	if err != nil || s.Foreign {
		return err
	}
	return usable(plaintext, s.DEK)
}

// usable reports why kube-apiserver could not use an unwrapped seed or DEK
// (pkg/storage/value/encrypt/aes of k8s.io/apiserver); nil if it can.
func usable(plaintext []byte, dek bool) error {
	n := len(plaintext)
	switch {
	case dek && n != 16 && n != 24 && n != 32:
		return &Failure{Verdict: Lost, Reason: fmt.Sprintf("the unwrapped DEK has %d bytes, which is not the length of an AES key", n)}
	case !dek && n < 32:
		return &Failure{Verdict: Lost, Reason: fmt.Sprintf("the unwrapped seed has %d bytes; a seed has at least 32", n)}
	}
	return nil
}

// sleep waits for d and reports whether ctx is still alive then.
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

// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Everything that is tried more than once is tried by the rules of this file: a
// request (withRetries), a call to each node (tryEachNode), a reload and a login
// (pause).

const (
	// undivided is the time left below which an attempt may use all of it.
	undivided = time.Second
	// lastChance is kept for the last attempt and for the answer to the caller,
	// so that the caller sees our error, not DeadlineExceeded.
	lastChance = 200 * time.Millisecond
)

// withRetries makes a request with v's generation and repeats it while that can
// help, within ctx: on the next generation if Vault denied this one, after a
// pause and from the retry budget if Vault could not be used.
func (k *KEK) withRetries(ctx context.Context, v *view, request func(context.Context, *Generation) error) error {
	if v.gen == nil {
		return v.health.trouble
	}
	k.retries.earn()
	pause := newBackoff(25*time.Millisecond, 250*time.Millisecond)
	retried := false
	for gen := v.gen; ; {
		err := k.attempt(ctx, gen, request)
		switch class := fault.ClassOf(err); {
		case class == fault.Denied && !gen.client.Proxied():
			next := k.awaitNextClient(ctx, gen)
			if next == nil {
				return err
			}
			gen = next
		// A proxy that is denied gets a new token by itself.
		case class.Transient(), class == fault.Denied:
			if !k.awaitRetry(ctx, pause) {
				k.wakeProber()
				return err
			}
			retried = true
			// Another address may have been adopted meanwhile.
			gen = k.Current()
		default:
			if err == nil && retried {
				k.retries.refund()
			}
			return err
		}
	}
}

// attempt makes one request when a slot is free. While there is time for another
// attempt, one that hangs is cut.
func (k *KEK) attempt(ctx context.Context, gen *Generation, request func(context.Context, *Generation) error) error {
	select {
	case k.slots <- struct{}{}:
	case <-ctx.Done():
		return fault.Errorf(fault.Overloaded, "concurrency limit (%d) reached; timed out waiting", cap(k.slots))
	}
	defer func() { <-k.slots }()
	if deadline, ok := ctx.Deadline(); ok {
		if left := time.Until(deadline); left > undivided {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, left*3/5)
			defer cancel()
		}
	}
	return request(ctx, gen)
}

// awaitRetry pauses before another attempt and reports whether there is time for
// one. An empty budget does not end a request before its deadline: it waits, and
// Vault may be back by then.
func (k *KEK) awaitRetry(ctx context.Context, pause backoff.BackOff) bool {
	for {
		d := pause.NextBackOff()
		if deadline, ok := ctx.Deadline(); ok {
			d = min(d, time.Until(deadline)-lastChance)
		}
		if d <= 0 || !wait(ctx, d) {
			return false
		}
		if k.retries.spend() {
			return true
		}
		k.wakeProber()
	}
}

// awaitNextClient waits for a generation with another client than gen's while
// there is time left to use it; nil if none came.
func (k *KEK) awaitNextClient(ctx context.Context, gen *Generation) *Generation {
	k.opts.Reread()
	// If we can log in again, the prober does so.
	k.wakeProber()
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-lastChance))
		defer cancel()
	}
	for {
		v := k.view.Load()
		if v.gen.client != gen.client {
			return v.gen
		}
		select {
		case <-v.replaced:
		case <-ctx.Done():
			return nil
		}
	}
}

// wakeProber makes the prober check the trouble that a request has met. It never
// blocks.
func (k *KEK) wakeProber() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// tryEachNode calls f once for each node, at least twice, until Vault can be
// used: after a failure the client turns to its next node. The time of ctx is
// shared, so that a node that hangs leaves time for the others.
func tryEachNode(ctx context.Context, client *vault.Client, f func(context.Context) error) error {
	for turns := max(2, client.Nodes()); ; turns-- {
		turn, cancel := ctx, context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok {
			turn, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(turns))
		}
		err := f(turn)
		cancel()
		if turns == 1 || ctx.Err() != nil || !fault.ClassOf(err).Transient() {
			return err
		}
	}
}

// budget bounds the retries during an outage, when every request would be
// repeated: two for each request and what was saved before. A retry that Vault
// answered is free. It is safe for concurrent use.
type budget struct{ left atomic.Int64 }

const (
	retriesPerRequest = 2
	savedRetries      = 100
)

// fill restores the savings: Vault has just been seen to work.
func (b *budget) fill() { b.left.Store(savedRetries) }

func (b *budget) earn() {
	if b.left.Load() < savedRetries {
		b.left.Add(retriesPerRequest)
	}
}

func (b *budget) refund() { b.left.Add(1) }

func (b *budget) spend() bool {
	if b.left.Add(-1) < 0 {
		b.left.Add(1)
		return false
	}
	return true
}

// pause is the time between attempts to adopt a configuration or a token.
type pause struct{ short, long *backoff.ExponentialBackOff }

func newPause() pause {
	return pause{
		short: newBackoff(500*time.Millisecond, 5*time.Second),
		long:  newBackoff(3*time.Minute, 15*time.Minute),
	}
}

func (p pause) after(err error) time.Duration {
	var e *reloadError
	if errors.As(err, &e) && e.patient {
		return p.long.NextBackOff()
	}
	return p.short.NextBackOff()
}

func (p pause) reset() {
	p.short.Reset()
	p.long.Reset()
}

func newBackoff(first, longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = first
	b.MaxInterval = longest
	return b
}

// wait waits for d and reports false if ctx is done first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

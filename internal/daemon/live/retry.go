// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/vault"
)

const (
	// undivided is the time below which an attempt is not cut short in favour
	// of another one.
	undivided = time.Second
	// lastChance is the time kept for the last attempt, and for telling the
	// caller how it ended: one whose deadline has passed would hear of nothing
	// but that.
	lastChance = 200 * time.Millisecond
)

// try makes one attempt, when it is its turn. One that hangs is cut while there
// is time for another.
func (k *KEK) try(ctx context.Context, gen *Generation, request func(context.Context, *Generation) error) error {
	select {
	case k.slots <- struct{}{}:
	case <-ctx.Done():
		return fault.Errorf(fault.Overloaded, "%d requests were asking vault at the same time, which is as many as may, until this one's time was over", cap(k.slots))
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

// sleep waits for d, or less to leave time for a last attempt, and reports
// whether there is time for one.
func sleep(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(deadline)-lastChance)
	}
	if d <= 0 {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// askAround has f ask Vault, and ask again as long as Vault could not be used:
// each of its nodes once, since the client goes on to the next one, and a single
// node twice. One that hangs is cut so that all have their turn within ctx.
func askAround(ctx context.Context, client *vault.Client, f func(context.Context) error) error {
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

// budget bounds retries by requests: in an outage, when every request would be
// made again and again, Vault gets no more than two retries for each, beyond
// what was saved. A retry that Vault answered costs nothing. It is safe for
// concurrent use.
type budget struct{ left atomic.Int64 }

const (
	retriesPerRequest = 2
	// savedRetries lets the requests of a quiet time, or the first of an
	// outage, use all the time they have.
	savedRetries = 100
)

// restore fills the budget: Vault has just been seen to work.
func (b *budget) restore() { b.left.Store(savedRetries) }

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

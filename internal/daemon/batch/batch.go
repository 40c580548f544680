// SPDX-License-Identifier: Apache-2.0

// Package batch lets concurrent requests share calls to Vault, which spends most of
// a transit call on HTTP, authentication, policy and audit, and little on AES.
//
// A request that comes while a call may begin makes one at once, alone. While as
// many calls as may are under way, requests wait in lines, one for each node, key
// and operation. The next call that may begin takes all that wait in one line, up to
// a limit. Lines take turns. There is no timer: nobody waits for a batch to fill.
//
// One lock guards the lines and the count of calls. It is never held during a call.
package batch

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/vault"
)

const (
	// maxItems bounds a batch, and with it how long an item waits for the others.
	maxItems = 256
	// maxBytes bounds the plaintexts or ciphertexts of a batch. A real one has 60 or
	// 100 bytes. Proxies often refuse bodies above 1 MiB.
	maxBytes = 256 << 10
	// undivided is the time left below which a call may use all of it.
	undivided = time.Second
)

// Queue bounds the calls to Vault that are under way. It is safe for concurrent use.
type Queue struct {
	limit int
	sizes *prometheus.HistogramVec

	mu       sync.Mutex
	underWay int
	lines    []*Line // with waiting requests, the one to be served next in front
	waiting  int     // requests in all lines
}

// New makes a queue of at most limit calls at the same time.
func New(limit int, reg prometheus.Registerer) *Queue {
	q := &Queue{limit: limit, sizes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "trousseau_vault_batch_items",
		Help:    "Requests that shared one call to Vault, by operation; 1 is a request that went alone.",
		Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, maxItems},
	}, []string{"operation"})}
	reg.MustRegister(q.sizes)
	return q
}

// Load returns how many calls are under way, and how many requests wait.
func (q *Queue) Load() (underWay, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.underWay, q.waiting
}

// Line is what may share a call: one operation with one key at one node. It is safe
// for concurrent use.
type Line struct {
	queue     *Queue
	operation string
	one       func(context.Context, vault.Item) ([]byte, error)
	many      func(context.Context, []vault.Item) ([]vault.Outcome, error)
	refused   func(error)

	// Guarded by queue.mu.
	requests []*request // waiting
	answered int        // calls that Vault has answered
	alone    bool       // batches are not taken
}

// Encrypt makes the line that encrypts with a key at c. refused is called once, if
// Vault or something before it takes single items and no batches.
func (q *Queue) Encrypt(c *vault.Client, key string, refused func(error)) *Line {
	return &Line{queue: q, operation: "encrypt", refused: refused,
		one: func(ctx context.Context, i vault.Item) ([]byte, error) {
			ciphertext, _, err := c.Encrypt(ctx, key, i.Version, i.Data, i.AssociatedData)
			return ciphertext, err
		},
		many: func(ctx context.Context, items []vault.Item) ([]vault.Outcome, error) {
			return c.EncryptBatch(ctx, key, items)
		},
	}
}

// Decrypt makes the line that decrypts with a key at c.
func (q *Queue) Decrypt(c *vault.Client, key string, refused func(error)) *Line {
	return &Line{queue: q, operation: "decrypt", refused: refused,
		one: func(ctx context.Context, i vault.Item) ([]byte, error) {
			return c.Decrypt(ctx, key, i.Data, i.AssociatedData)
		},
		many: func(ctx context.Context, items []vault.Item) ([]vault.Outcome, error) {
			return c.DecryptBatch(ctx, key, items)
		},
	}
}

// request is an item that waits for a call.
type request struct {
	ctx     context.Context
	item    vault.Item
	outcome chan vault.Outcome // buffered: a caller that has given up is not missed
	givenUp bool               // guarded by queue.mu
}

// Do makes a call for item, alone or together with others. It is bounded by ctx.
// While there is time for another attempt, it gives up a call that hangs, and a line
// whose calls hang. The class of its error is that of item alone; [fault.Overloaded]
// means that Vault answered others until ctx was done.
func (l *Line) Do(ctx context.Context, item vault.Item) ([]byte, error) {
	q := l.queue
	r := &request{ctx: ctx, item: item, outcome: make(chan vault.Outcome, 1)}
	q.mu.Lock()
	if q.underWay < q.limit {
		q.underWay++
		q.mu.Unlock()
		defer q.release()
		o := l.callOne(ctx, item)
		return o.Data, o.Err
	}
	l.enqueue(r)
	answered := l.answered
	q.mu.Unlock()
	patience := time.NewTimer(attempt(ctx))
	defer patience.Stop()
	for {
		select {
		case o := <-r.outcome:
			return o.Data, o.Err
		case <-ctx.Done():
		case <-patience.C:
		}
		if err := l.giveUp(r, &answered); err != nil {
			return nil, err
		}
		patience.Reset(attempt(ctx))
	}
}

// giveUp ends r's wait, and says why, if its context is done or Vault has answered
// no call of the line since there were this many.
func (l *Line) giveUp(r *request, answered *int) (err error) {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	switch {
	case errors.Is(r.ctx.Err(), context.Canceled):
		err = fault.Errorf(fault.Canceled, "canceled by the caller")
	case l.answered == *answered:
		err = fault.Errorf(fault.Timeout, "vault did not answer the calls before this one in time")
	case r.ctx.Err() != nil:
		err = fault.Errorf(fault.Overloaded, "concurrency limit (%d) reached; timed out waiting", l.queue.limit)
	}
	r.givenUp, *answered = err != nil, l.answered
	return err
}

// attempt is how long a call that begins now may take: as long as there is time for
// another one, not all that is left.
func attempt(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 30 * time.Second // as in package vault
	}
	left := time.Until(deadline)
	if left > undivided {
		left = left * 3 / 5
	}
	return left
}

// enqueue adds requests at the end of l; q.mu must be held.
func (l *Line) enqueue(requests ...*request) {
	if len(l.requests) == 0 && len(requests) > 0 {
		l.queue.lines = append(l.queue.lines, l)
	}
	l.requests = append(l.requests, requests...)
	l.queue.waiting += len(requests)
}

// release ends a call and lets those that wait have the next one.
func (q *Queue) release() {
	if l, requests := q.next(); l != nil {
		go func() {
			for ; l != nil; l, requests = q.next() {
				l.serve(requests)
			}
		}()
	}
}

// next ends a call and returns what the next one is for; nil if nobody waits.
func (q *Queue) next() (*Line, []*request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.lines) > 0 {
		l := q.lines[0]
		q.lines = q.lines[1:]
		requests := l.take()
		if len(l.requests) > 0 {
			q.lines = append(q.lines, l)
		}
		if len(requests) > 0 {
			return l, requests
		}
	}
	q.underWay--
	return nil, nil
}

// take removes from l what one call may hold, and the requests that have been given
// up; q.mu must be held.
func (l *Line) take() (taken []*request) {
	bytes, n := 0, 0
	for _, r := range l.requests {
		if !r.givenUp && r.ctx.Err() == nil {
			bytes += len(r.item.Data)
			if len(taken) == maxItems || len(taken) > 0 && (l.alone || bytes > maxBytes) {
				break
			}
			taken = append(taken, r)
		}
		n++
	}
	l.requests = l.requests[n:]
	l.queue.waiting -= n
	return taken
}

// serve makes one call for requests.
func (l *Line) serve(requests []*request) {
	if len(requests) == 1 {
		requests[0].outcome <- l.callOne(requests[0].ctx, requests[0].item)
		return
	}
	outcomes, err := l.callMany(requests)
	if refused, ok := errors.AsType[*vault.BatchRefused](err); ok {
		// Is it the batch that is refused, or the items?
		first := l.callOne(requests[0].ctx, requests[0].item)
		switch err = first.Err; fault.ClassOf(err) {
		case "", fault.Invalid, fault.VersionTooOld, fault.VersionTooNew:
			requests[0].outcome <- first
			l.splitUp(requests[1:], refused)
			return
		}
	}
	for i, r := range requests {
		if err != nil {
			r.outcome <- vault.Outcome{Err: err}
		} else {
			r.outcome <- outcomes[i]
		}
	}
}

func (l *Line) callOne(ctx context.Context, item vault.Item) vault.Outcome {
	ctx, cancel := context.WithTimeout(ctx, attempt(ctx))
	defer cancel()
	data, err := l.one(ctx, item)
	l.count(1, err)
	return vault.Outcome{Data: data, Err: err}
}

func (l *Line) callMany(requests []*request) ([]vault.Outcome, error) {
	// A caller that gives up does not disturb the others, so the call may take as
	// long as the most patient one waits.
	var longest time.Duration
	items := make([]vault.Item, len(requests))
	for i, r := range requests {
		items[i] = r.item
		longest = max(longest, attempt(r.ctx))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(requests[0].ctx), longest)
	defer cancel()
	outcomes, err := l.many(ctx, items)
	l.count(len(items), err)
	return outcomes, err
}

// count counts a call of n items, and whether Vault has answered it.
func (l *Line) count(n int, err error) {
	l.queue.sizes.WithLabelValues(l.operation).Observe(float64(n))
	if class := fault.ClassOf(err); class != fault.Timeout && class != fault.Canceled {
		l.queue.mu.Lock()
		l.answered++
		l.queue.mu.Unlock()
	}
}

// splitUp makes requests wait again, each for a call of its own.
func (l *Line) splitUp(requests []*request, refused error) {
	q := l.queue
	q.mu.Lock()
	first := !l.alone
	l.alone = true
	l.enqueue(requests...)
	q.mu.Unlock()
	if first {
		l.refused(refused)
	}
}

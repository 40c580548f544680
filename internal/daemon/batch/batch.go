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
)

// Queue bounds the calls to Vault that are under way. It is safe for concurrent use.
type Queue struct {
	limit int
	sizes *prometheus.HistogramVec

	mu       sync.Mutex
	underWay int
	lines    []*Line // with waiting requests, the one to be served next in front
	waiting  int     // requests in all lines
	ended    uint64  // calls
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

	requests []*request // waiting, guarded by queue.mu
	alone    bool       // batches are not taken, guarded by queue.mu
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
}

// Do makes a call for item, alone or together with others. It is bounded by ctx. The
// class of its error is that of item alone. [fault.Overloaded] means that other
// calls ended while it waited, but its turn did not come.
func (l *Line) Do(ctx context.Context, item vault.Item) ([]byte, error) {
	q := l.queue
	q.mu.Lock()
	if q.underWay < q.limit {
		q.underWay++
		q.mu.Unlock()
		defer q.release()
		q.sizes.WithLabelValues(l.operation).Observe(1)
		return l.one(ctx, item)
	}
	r := &request{ctx, item, make(chan vault.Outcome, 1)}
	ended := q.ended
	l.enqueue(r)
	q.mu.Unlock()
	select {
	case o := <-r.outcome:
		return o.Data, o.Err
	case <-ctx.Done():
		return nil, q.givenUp(ctx, ended)
	}
}

// enqueue adds requests at the end of l; q.mu must be held.
func (l *Line) enqueue(requests ...*request) {
	if len(l.requests) == 0 && len(requests) > 0 {
		l.queue.lines = append(l.queue.lines, l)
	}
	l.requests = append(l.requests, requests...)
	l.queue.waiting += len(requests)
}

func (q *Queue) givenUp(ctx context.Context, ended uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fault.Errorf(fault.Canceled, "canceled by the caller")
	case q.ended == ended:
		return fault.Errorf(fault.Timeout, "vault did not answer the calls before this one in time")
	}
	return fault.Errorf(fault.Overloaded, "concurrency limit (%d) reached; timed out waiting", q.limit)
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
	q.ended++
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
		if r.ctx.Err() == nil {
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
	l.queue.sizes.WithLabelValues(l.operation).Observe(float64(len(requests)))
	if len(requests) == 1 {
		l.serveAlone(requests[0].ctx, requests[0])
		return
	}
	// A caller that gives up does not disturb the others.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(requests[0].ctx), latest(requests))
	defer cancel()
	items := make([]vault.Item, len(requests))
	for i, r := range requests {
		items[i] = r.item
	}
	outcomes, err := l.many(ctx, items)
	var refused *vault.BatchRefused
	if errors.As(err, &refused) {
		// Is it the batch that is refused, or the items?
		err = l.serveAlone(ctx, requests[0])
		requests = requests[1:]
		switch class := fault.ClassOf(err); class {
		case "", fault.Invalid, fault.VersionTooOld, fault.VersionTooNew:
			l.splitUp(requests, refused)
			return
		}
	}
	for i, r := range requests {
		o := vault.Outcome{Err: err}
		if err == nil {
			o = outcomes[i]
		}
		r.outcome <- o
	}
}

func (l *Line) serveAlone(ctx context.Context, r *request) error {
	data, err := l.one(ctx, r.item)
	r.outcome <- vault.Outcome{Data: data, Err: err}
	return err
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

// latest returns the latest deadline of requests. Those without one get what
// vault.Client gives them.
func latest(requests []*request) (latest time.Time) {
	for _, r := range requests {
		deadline, ok := r.ctx.Deadline()
		if !ok {
			deadline = time.Now().Add(30 * time.Second)
		}
		if deadline.After(latest) {
			latest = deadline
		}
	}
	return latest
}

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
	"fmt"
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
	// singles is how many calls may be under way if each holds one request.
	singles = 128
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
	answered uint64  // calls that ended before they were cut
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
	for _, l := range q.lines {
		for _, r := range l.requests {
			if r.ctx.Err() == nil {
				waiting++
			}
		}
	}
	return q.underWay, waiting
}

// Line is what may share a call: one operation with one key at one node. It is safe
// for concurrent use.
type Line struct {
	queue     *Queue
	operation string
	what      string // begins errors, as those of vault.Client
	one       func(context.Context, vault.Item) ([]byte, error)
	many      func(context.Context, []vault.Item) ([]vault.Outcome, error)
	refused   func(error)

	requests  []*request // waiting, guarded by queue.mu
	unbatched bool       // batches are refused, guarded by queue.mu
}

// Encrypt makes the line that encrypts with a key at c. refused is called once, if
// Vault or something before it takes single items and no batches.
func (q *Queue) Encrypt(c *vault.Client, key string, refused func(error)) *Line {
	return &Line{queue: q, operation: "encrypt", what: what("encrypting", c, key), refused: refused,
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
	return &Line{queue: q, operation: "decrypt", what: what("decrypting", c, key), refused: refused,
		one: func(ctx context.Context, i vault.Item) ([]byte, error) {
			return c.Decrypt(ctx, key, i.Data, i.AssociatedData)
		},
		many: func(ctx context.Context, items []vault.Item) ([]vault.Outcome, error) {
			return c.DecryptBatch(ctx, key, items)
		},
	}
}

func what(doing string, c *vault.Client, key string) string {
	return doing + " with " + c.Engine() + "/" + key + " at " + c.Address()
}

// request is an item that waits for a call.
type request struct {
	ctx     context.Context // done when the caller has given up
	item    vault.Item
	taken   chan struct{}      // closed when the call begins
	outcome chan vault.Outcome // buffered: a caller that has given up is not missed
}

// errAlone is the outcome of a request that must be made again, alone.
var errAlone = errors.New("batches are refused")

// Do makes a call for item, alone or together with others. It is bounded by ctx; a
// call that hangs is cut before, see cutAt. The class of its error is that of item
// alone. [fault.Overloaded] means that Vault answered others while it waited, but its
// turn did not come.
func (l *Line) Do(ctx context.Context, item vault.Item) (data []byte, err error) {
	q := l.queue
	q.mu.Lock()
	if q.underWay < q.limit || l.unbatched && q.underWay < singles {
		q.underWay++
		q.mu.Unlock()
		defer func() { q.release(err) }()
		return l.alone(ctx, item)
	}
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	r := &request{ctx, item, make(chan struct{}), make(chan vault.Outcome, 1)}
	if len(l.requests) == 0 {
		q.lines = append(q.lines, l)
	}
	l.requests = append(l.requests, r)
	answered := q.answered
	q.mu.Unlock()
	if err := l.wait(r, answered); err != nil {
		return nil, err
	}
	call, cancel := context.WithDeadline(ctx, cutAt(ctx))
	defer cancel()
	select {
	case o := <-r.outcome:
		if errors.Is(o.Err, errAlone) {
			return l.Do(ctx, item)
		}
		return o.Data, o.Err
	case <-call.Done():
		return nil, l.gaveUp(call, fault.Timeout, "vault did not answer in time")
	}
}

// wait waits until r is taken. answered is how many calls had been answered when it
// came.
func (l *Line) wait(r *request, answered uint64) error {
	patience := time.NewTimer(time.Until(cutAt(r.ctx)))
	defer patience.Stop()
	select {
	case <-r.taken:
		return nil
	case <-r.ctx.Done():
	case <-patience.C:
	}
	l.queue.mu.Lock()
	hangs := l.queue.answered == answered
	l.queue.mu.Unlock()
	if hangs {
		return l.gaveUp(r.ctx, fault.Timeout, "vault did not answer in time")
	}
	select {
	case <-r.taken:
		return nil
	case <-r.ctx.Done():
		return l.gaveUp(r.ctx, fault.Overloaded, fmt.Sprintf("concurrency limit (%d) reached; timed out waiting", l.queue.limit))
	}
}

// gaveUp is the error of a request whose call did not come or did not end.
func (l *Line) gaveUp(ctx context.Context, class fault.Class, reason string) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		class, reason = fault.Canceled, "canceled by the caller"
	}
	return fault.Errorf(class, "%s: %s", l.what, reason)
}

// release ends a call, as err says, and lets those that wait have the next one.
func (q *Queue) release(err error) {
	if l, requests := q.next(err); l != nil {
		go func() {
			for ; l != nil; l, requests = q.next(err) {
				err = l.serve(requests)
			}
		}()
	}
}

// next ends a call, as err says, and returns what the next one is for; nil if nobody
// waits.
func (q *Queue) next(err error) (*Line, []*request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if class := fault.ClassOf(err); class != fault.Timeout && class != fault.Canceled {
		q.answered++
	}
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
			if len(taken) == maxItems || len(taken) > 0 && (l.unbatched || bytes > maxBytes) {
				break
			}
			taken = append(taken, r)
			close(r.taken)
		}
		n++
	}
	l.requests = l.requests[n:]
	return taken
}

// serve makes one call for requests, and returns how it ended.
func (l *Line) serve(requests []*request) error {
	if len(requests) == 1 {
		r := requests[0]
		data, err := l.alone(r.ctx, r.item)
		r.outcome <- vault.Outcome{Data: data, Err: err}
		return err
	}
	// A caller that gives up does not disturb the others.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(requests[0].ctx), latest(requests))
	defer cancel()
	outcomes, err := l.together(ctx, requests)
	if isRefused(err) {
		// Is it the batch that is refused, or the items?
		r := requests[0]
		requests = requests[1:]
		var data []byte
		data, err = l.alone(ctx, r.item)
		r.outcome <- vault.Outcome{Data: data, Err: err}
		switch fault.ClassOf(err) {
		case "", fault.Invalid, fault.VersionTooOld, fault.VersionTooNew:
			// The batch, unless it was the moment: a proxy may have had no token.
			outcomes, err = l.together(ctx, requests)
			if isRefused(err) {
				l.unbatch(err)
				err = errAlone
			}
		}
	}
	for i, r := range requests {
		o := vault.Outcome{Err: err}
		if err == nil {
			o = outcomes[i]
		}
		r.outcome <- o
	}
	return err
}

// alone makes a call for one item.
func (l *Line) alone(ctx context.Context, item vault.Item) ([]byte, error) {
	l.queue.sizes.WithLabelValues(l.operation).Observe(1)
	ctx, cancel := context.WithDeadline(ctx, cutAt(ctx))
	defer cancel()
	return l.one(ctx, item)
}

// together makes a call for several requests.
func (l *Line) together(ctx context.Context, requests []*request) ([]vault.Outcome, error) {
	l.queue.sizes.WithLabelValues(l.operation).Observe(float64(len(requests)))
	items := make([]vault.Item, len(requests))
	for i, r := range requests {
		items[i] = r.item
	}
	return l.many(ctx, items)
}

func isRefused(err error) bool {
	var refused *vault.BatchRefused
	return errors.As(err, &refused)
}

// unbatch ends batches for l.
func (l *Line) unbatch(reason error) {
	l.queue.mu.Lock()
	first := !l.unbatched
	l.unbatched = true
	l.queue.mu.Unlock()
	if first {
		l.refused(reason)
	}
}

// cutAt returns when a call that begins now ends at the latest: while there is time
// for another attempt, one that hangs is cut.
func cutAt(ctx context.Context) time.Time {
	deadline, ok := ctx.Deadline()
	if !ok {
		return time.Now().Add(30 * time.Second) // as vault.Client
	}
	if left := time.Until(deadline); left > undivided {
		return time.Now().Add(left * 3 / 5)
	}
	return deadline
}

// latest returns when the last of requests is cut.
func latest(requests []*request) (latest time.Time) {
	for _, r := range requests {
		if at := cutAt(r.ctx); at.After(latest) {
			latest = at
		}
	}
	return latest
}

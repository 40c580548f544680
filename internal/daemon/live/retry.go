// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Everything that is tried more than once is tried by the rules of this file, and
// at another node by those of cluster.go.

// lastChance is kept for the last attempt and for the answer to the caller, so that
// the caller sees our error, not DeadlineExceeded.
const lastChance = 200 * time.Millisecond

// withRetries makes a request with v's generation and repeats it while that can
// help, within ctx: on the next generation if Vault denied this one, after a
// pause, from the retry budget and at another node if Vault could not be used.
func (k *KEK) withRetries(ctx context.Context, v *view, request func(context.Context, *Generation, *node) error) error {
	if v.gen == nil {
		if v = k.awaitFirst(ctx, v); v.gen == nil {
			return v.health.trouble
		}
	}
	k.retries.earn()
	pause := newBackoff(25*time.Millisecond, 250*time.Millisecond)
	retried := false
	for gen, n := v.gen, v.gen.cluster.serving.Load(); ; {
		err := k.attempt(ctx, gen, n, request)
		class := fault.ClassOf(err)
		if class == fault.Denied || class == fault.KeyLost {
			err = k.askOthers(ctx, gen, n, err, request)
			class = fault.ClassOf(err)
		}
		switch {
		case class == fault.Denied && !n.Proxied():
			next := k.awaitNextCluster(ctx, gen)
			if next == nil {
				return err
			}
			gen, n = next, next.cluster.serving.Load()
		// A proxy that is denied gets a new token by itself.
		case class.Transient(), class == fault.Denied:
			if !k.awaitRetry(ctx, pause) {
				k.wakeProber()
				return err
			}
			retried = true
			// Another configuration may have been adopted meanwhile.
			gen = k.Current()
			if class == fault.Throttled {
				// Vault counts rate limit quotas on each node, so trying the next one
				// would bypass the operator's limit
				// (developer.hashicorp.com/vault/docs/concepts/resource-quotas).
				n = gen.cluster.serving.Load()
			} else {
				n = gen.cluster.another(n)
			}
		default:
			if err == nil && retried {
				k.retries.refund()
			}
			return err
		}
		k.metrics.retries.WithLabelValues(string(class)).Inc()
	}
}

// attempt makes one request, and records what it tells about the node.
func (k *KEK) attempt(ctx context.Context, gen *Generation, n *node, request func(context.Context, *Generation, *node) error) error {
	began := time.Now()
	err := request(ctx, gen, n)
	switch class := fault.ClassOf(err); {
	case err == nil && !n.usable():
		gen.cluster.record(n, nil)
	case class == fault.Unavailable, class == fault.Sealed:
		gen.cluster.record(n, err)
	// A caller in a hurry says nothing about the node.
	case class == fault.Timeout && time.Since(began) >= k.opts.RequestTimeout/3:
		gen.cluster.record(n, err)
	}
	return err
}

// askOthers repeats a request that n has refused at the other usable nodes: only
// what all of them refuse is refused.
func (k *KEK) askOthers(ctx context.Context, gen *Generation, n *node, refusal error, request func(context.Context, *Generation, *node) error) error {
	// The prober has already asked them.
	if fault.ClassOf(k.Degraded()) == fault.ClassOf(refusal) {
		return refusal
	}
	for _, other := range gen.cluster.rest(n) {
		err := k.attempt(ctx, gen, other, request)
		if err == nil {
			gen.cluster.record(n, refusal)
			return nil
		}
	}
	return refusal
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

// awaitNextCluster waits for a generation with another cluster than gen's while
// there is time left to use it; nil if none came.
func (k *KEK) awaitNextCluster(ctx context.Context, gen *Generation) *Generation {
	k.opts.Reread()
	// If we can log in again, the prober does so.
	k.wakeProber()
	ctx, cancel := untilLastChance(ctx)
	defer cancel()
	for {
		v := k.view.Load()
		if v.gen.cluster != gen.cluster {
			return v.gen
		}
		select {
		case <-v.replaced:
		case <-ctx.Done():
			return nil
		}
	}
}

// awaitFirst waits for the first generation while there is time left to use it, and
// makes the loader try soon. An API server that starts before Vault lists again only
// after up to a minute, so a request that fails although Vault is back is expensive.
func (k *KEK) awaitFirst(ctx context.Context, v *view) *view {
	select {
	case k.wanted <- struct{}{}:
	default:
	}
	ctx, cancel := untilLastChance(ctx)
	defer cancel()
	select {
	case <-v.replaced:
	case <-ctx.Done():
	}
	return k.view.Load()
}

// untilLastChance ends ctx early enough for a last attempt.
func untilLastChance(ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, deadline.Add(-lastChance))
	}
	return context.WithCancel(ctx)
}

// wakeProber makes the prober check the trouble that a request has met. It never
// blocks.
func (k *KEK) wakeProber() {
	select {
	case k.wake <- struct{}{}:
	default:
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

// pause says when to try to adopt a configuration or a token again. The zero pause
// does not wait.
type pause struct {
	kek     *KEK
	backoff *backoff.ExponentialBackOff
	// began is when the last attempt ended, until when the next one may begin.
	began, until time.Time
	// patient means that another attempt soon does harm. It is made early only if
	// Hurry is called or Vault's nodes are not as they were, and for the latter
	// only once in a while.
	patient bool
	hurried int64
	nodes   string
	early   time.Time
}

// lockout is the time in which Vault counts refused logins, and locks an AppRole
// out after five (developer.hashicorp.com/vault/docs/concepts/user-lockout). With
// one in this time, three nodes with the same AppRole stay below that.
const lockout = 15 * time.Minute

// soonest is the shortest pause, also if a request waits for the attempt.
const soonest = 500 * time.Millisecond

func newPause(k *KEK) pause {
	return pause{kek: k, backoff: newBackoff(soonest, 5*time.Second)}
}

// begin starts the pause after an attempt with cfg that ended with err.
func (p *pause) begin(ctx context.Context, cfg *config.Config, err error) {
	var e *reloadError
	p.patient = errors.As(err, &e) && e.patient
	p.began = time.Now()
	if !p.patient {
		p.until = p.began.Add(p.backoff.NextBackOff())
		return
	}
	p.until = p.began.Add(lockout + rand.N(lockout/3))
	p.hurried = p.kek.hurried.Load()
	p.nodes = p.kek.seeNodes(ctx, cfg)
}

// shorten ends a pause early, because a request waits for the attempt. It reports
// whether that changes the pause.
func (p *pause) shorten() bool {
	soon := p.began.Add(soonest)
	if p.patient || !soon.Before(p.until) {
		return false
	}
	p.until = soon
	return true
}

// look is when to call over at the latest.
func (p *pause) look() time.Time {
	if p.patient {
		if soon := time.Now().Add(p.kek.opts.ProbeInterval); soon.Before(p.until) {
			return soon
		}
	}
	return p.until
}

// over reports whether cfg may be tried again.
func (p *pause) over(ctx context.Context, cfg *config.Config) bool {
	switch {
	case !time.Now().Before(p.until):
		return true
	case !p.patient:
		return false
	case p.hurried != p.kek.hurried.Load():
		return true
	case time.Since(p.early) < lockout || p.nodes == p.kek.seeNodes(ctx, cfg):
		return false
	}
	p.early = time.Now()
	return true
}

func (p *pause) reset() {
	p.backoff.Reset()
	p.until, p.patient = time.Time{}, false
}

// seeNodes describes the nodes of cfg's Vault, as they answer to everyone, in a
// text that changes when one of them comes back, is unsealed or is replaced.
func (k *KEK) seeNodes(ctx context.Context, cfg *config.Config) string {
	nodes, err := k.dial(cfg)
	if err != nil {
		return err.Error()
	}
	defer nodes[0].Close()
	ctx, cancel := context.WithTimeout(ctx, k.opts.RequestTimeout)
	defer cancel()
	seen := make([]string, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			var health struct {
				Initialized, Sealed, Standby bool
				Cluster                      string `json:"cluster_id"`
			}
			err := n.Query(ctx, vault.Query{What: "asking for sys/health", Path: "sys/health"}, &health)
			seen[i] = fmt.Sprint(health, fault.ClassOf(err))
		})
	}
	all.Wait()
	return strings.Join(seen, ", ")
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

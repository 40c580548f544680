// SPDX-License-Identifier: Apache-2.0

// Package live keeps the KEK usable while its configuration changes.
//
// One version of the configuration, proven against Vault, is a [Generation]. It
// never changes. A request loads the current one once and uses nothing else.
// Only the choice of the current generation changes: the loader makes a
// candidate from new configuration, the prober from a new version of the transit
// key. A candidate is proven, checked against the generation in use, and adopted
// in one swap. If a step fails, the generation in use stays.
package live

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/daemon/batch"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Options are what a [KEK] is made of.
type Options struct {
	// Contents delivers the configuration each time that it has changed.
	Contents <-chan watch.Content[*config.Config]
	// Reread asks for the configuration to be read now, because Vault has just
	// denied a request. It must not block. Nil does nothing.
	Reread func()
	// RequestTimeout is the longest that one request may take. A replaced client
	// is closed that long after the swap.
	RequestTimeout time.Duration
	// ProbeInterval is how often the KEK is proven and Vault is asked for a
	// newer key version.
	ProbeInterval time.Duration
	// ProbeTimeout is the longest that one proof may take; 0 means 10 s. No request
	// waits for a proof.
	ProbeTimeout time.Duration
	// OutageGrace is how long after the last proof Status stays ok although Vault
	// cannot be used; 0 means no grace.
	OutageGrace time.Duration
	// MaxVaultRequests bounds the calls to Vault for requests at the same time; 0
	// means 3. More requests wait, and share the next call.
	MaxVaultRequests int
	// RequireTLS refuses a configuration whose token would leave this host
	// unencrypted.
	RequireTLS bool
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
	// Logger takes the log; nil discards it.
	Logger *zap.Logger
	// Transport replaces the network to Vault, for tests.
	Transport http.RoundTripper
}

// KEK is the key encryption key in use. Its methods are safe for concurrent use.
// It does nothing before [KEK.Run].
type KEK struct {
	opts    Options
	log     *zap.Logger
	vault   *vault.Metrics
	metrics *metrics

	// view is replaced as a whole and never changed in place.
	view atomic.Pointer[view]
	// writing orders the writers of view: the loader and the prober.
	writing sync.Mutex
	// retries is the shared retry budget.
	retries budget
	// queue bounds concurrent calls and lets requests share them.
	queue *batch.Queue
	// worked is when a request last decrypted what the key version in use had
	// encrypted, in nanoseconds since 1970.
	worked atomic.Int64
	// wake ends the prober's wait; hurry ends the loader's, and wanted shortens it.
	wake, hurry, wanted chan struct{}
	// hurried counts the calls of Hurry.
	hurried atomic.Int64
	// closing counts clients that are being closed.
	closing sync.WaitGroup
}

// view is the generation in use and what is known of it. Its parts change
// together where they belong together, so they travel behind one pointer.
type view struct {
	gen *Generation // nil before the first adoption
	// replaced is closed when another generation is adopted.
	replaced chan struct{}
	health   health
	token    tokenState
	reload   reloadState
}

// New makes a KEK and registers its metrics.
func New(opts Options) *KEK {
	if opts.Logger == nil {
		opts.Logger = zap.NewNop()
	}
	if opts.Registerer == nil {
		opts.Registerer = prometheus.NewRegistry()
	}
	opts.MaxVaultRequests = cmp.Or(opts.MaxVaultRequests, 3)
	opts.ProbeTimeout = cmp.Or(opts.ProbeTimeout, 10*time.Second)
	if opts.Reread == nil {
		opts.Reread = func() {}
	}
	k := &KEK{
		opts:   opts,
		log:    opts.Logger,
		vault:  vault.NewMetrics(opts.Registerer),
		wake:   make(chan struct{}, 1),
		hurry:  make(chan struct{}, 1),
		wanted: make(chan struct{}, 1),
		queue:  batch.New(opts.MaxVaultRequests, opts.Registerer),
	}
	nothing := fault.Errorf(fault.Unavailable, "no configuration has been read yet")
	k.view.Store(&view{health: health{trouble: nothing}, replaced: make(chan struct{})})
	k.metrics = newMetrics(opts.Registerer, k)
	return k
}

// Run loads, reloads and probes until ctx is done. It returns once every client
// has been closed. Stop serving requests before you end it.
func (k *KEK) Run(ctx context.Context) {
	var loops sync.WaitGroup
	loops.Go(func() { k.load(ctx) })
	loops.Go(func() { k.probe(ctx) })
	loops.Go(func() { k.tend(ctx) })
	loops.Wait()
	if gen := k.Current(); gen != nil {
		k.closeAfter(ctx, 0, gen.cluster)
	}
	k.closing.Wait()
}

// Current returns the generation in use, nil before the first adoption. A
// request calls it once.
func (k *KEK) Current() *Generation { return k.view.Load().gen }

// Replaced is closed when a generation is adopted after this call. To wait for
// the first adoption, call Replaced, then [KEK.Current], then wait.
func (k *KEK) Replaced() <-chan struct{} { return k.view.Load().replaced }

// Hurry ends the pause after a configuration or a login that was refused: it is
// tried again now. It does not wait for that.
func (k *KEK) Hurry() {
	k.hurried.Add(1)
	select {
	case k.hurry <- struct{}{}:
	default:
	}
	k.wakeProber()
}

// Encrypt wraps plaintext under the current key version. It is bounded by ctx.
func (k *KEK) Encrypt(ctx context.Context, plaintext []byte) (wrapped seed.Wrapped, err error) {
	v := k.view.Load()
	// What a lost key encrypts could not be read back.
	if fault.ClassOf(v.health.trouble) == fault.KeyLost {
		return seed.Wrapped{}, v.health.trouble
	}
	err = k.withRetries(ctx, v, func(ctx context.Context, gen *Generation, n *node) error {
		wrapped, err = gen.encrypt(ctx, n, plaintext)
		return err
	})
	switch fault.ClassOf(err) {
	// The prober finds the version that is allowed since min_encryption_version was
	// raised, or that the key is lost.
	case fault.VersionTooOld, fault.KeyLost:
		k.wakeProber()
	}
	return wrapped, err
}

// Decrypt unwraps what Encrypt has wrapped, with the key version that it names.
// It is bounded by ctx. The caller owns the result.
func (k *KEK) Decrypt(ctx context.Context, wrapped seed.Wrapped) (plaintext []byte, err error) {
	err = k.withRetries(ctx, k.view.Load(), func(ctx context.Context, gen *Generation, n *node) error {
		plaintext, err = gen.decrypt(ctx, n, wrapped)
		if err == nil && wrapped.KeyID == gen.KeyID {
			k.worked.Store(time.Now().UnixNano())
		}
		return err
	})
	return plaintext, err
}

// adopt makes next current if from still is, and closes from's client once its
// requests are done. It reports whether it did.
func (k *KEK) adopt(ctx context.Context, from, next *Generation, token vault.Token) bool {
	k.writing.Lock()
	defer k.writing.Unlock()
	old := k.view.Load()
	if old.gen != from {
		return false
	}
	next.Number = 1
	if from != nil {
		next.Number = from.Number + 1
	}
	v := &view{
		gen:      next,
		replaced: make(chan struct{}),
		health:   health{proven: time.Now()},
		token:    tokenState{Token: token},
		reload:   old.reload,
	}
	if from != nil && from.cluster == next.cluster {
		v.token.final = old.token.final
	}
	// The prober's generations have the configuration of their predecessor.
	if from == nil || next.Digest != from.Digest {
		v.reload = reloadState{adopted: v.health.proven}
	}
	k.view.Store(v)
	k.retries.fill()
	close(old.replaced)
	if from != nil && from.cluster != next.cluster {
		k.closeAfter(ctx, k.opts.RequestTimeout, from.cluster)
	}
	return true
}

// update changes what is known beside the generation.
func (k *KEK) update(change func(*view)) {
	k.writing.Lock()
	defer k.writing.Unlock()
	next := *k.view.Load()
	change(&next)
	k.view.Store(&next)
}

// updateIf is update unless gen has been replaced.
func (k *KEK) updateIf(gen *Generation, change func(*view)) {
	k.update(func(v *view) {
		if v.gen == gen {
			change(v)
		}
	})
}

// closeAfter revokes a cluster's token, if it was issued to that cluster's clients
// alone, and closes them after d. It does not wait for that. Clients that requests
// may use are closed after RequestTimeout, which bounds each of them.
func (k *KEK) closeAfter(ctx context.Context, d time.Duration, c *cluster) {
	k.closing.Go(func() {
		defer c.nodes[0].Close()
		within := k.opts.RequestTimeout
		if !wait(ctx, d) || ctx.Err() != nil {
			within = min(within, time.Second) // the process is ending
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
		defer cancel()
		err := c.any(ctx, within, func(ctx context.Context, n *node) error { return n.Revoke(ctx) })
		if err != nil {
			k.log.Info("could not revoke the old token; it will expire", zap.Error(err))
		}
	})
}

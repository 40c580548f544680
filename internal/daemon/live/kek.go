// SPDX-License-Identifier: Apache-2.0

// Package live keeps the KEK in use while its configuration changes.
//
// One version of the configuration, proven against Vault, is a [Generation]. It
// never changes; a request loads the current one once and works with nothing
// else. What changes is which generation is current: a candidate made from new
// configuration, or from a new version of the transit key, is proven, checked
// against the generation in use and then adopted in one swap. A candidate that
// fails leaves everything as it was.
package live

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/daemon/watch"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Options are what a [KEK] is made of.
type Options struct {
	// Contents delivers the configuration whenever it has changed.
	Contents <-chan watch.Content
	// Look asks for the configuration to be read now, because Vault has just
	// denied a request. It must not block. Nil does nothing.
	Look func()
	// RequestTimeout is the longest that one request may take. A generation's
	// client is closed that long after it was replaced.
	RequestTimeout time.Duration
	// ProbeInterval is how often the KEK is proven and Vault asked for a newer
	// key version.
	ProbeInterval time.Duration
	// OutageGrace is how long after its last proof a KEK counts as healthy
	// although Vault cannot be used; 0 means not at all.
	OutageGrace time.Duration
	// MaxVaultRequests is how many requests may ask Vault at the same time; 0
	// means 128. The rest waits for its turn.
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

// KEK is the key encryption key as it is now. Its methods are safe for
// concurrent use. Nothing happens until [KEK.Run].
type KEK struct {
	opts    Options
	log     *zap.Logger
	vault   *vault.Metrics
	metrics *metrics

	// view is what requests see: always whole, replaced and never changed.
	view atomic.Pointer[view]
	// adopting orders the two writers of view, the loader and the prober.
	adopting sync.Mutex
	// retries is what requests may spend on being made again, slots what they
	// hold while they ask Vault.
	retries budget
	slots   chan struct{}
	// kick asks the prober to look at once.
	kick chan struct{}
	// retiring counts replaced clients that are not closed yet.
	retiring sync.WaitGroup
}

// view is the current generation and how it fares.
type view struct {
	gen *Generation // nil before the first adoption
	// proven is when gen last passed a round trip.
	proven time.Time
	// trouble is why gen did not pass its last probe, or, as long as there is
	// no gen, why there is none; nil when all is well.
	trouble error
	// lagging is since when Vault has not known gen's key version; zero if it
	// knows it.
	lagging time.Time
	// token is what Vault last said of gen's token, and final that it will not
	// extend its life any more.
	token vault.Token
	final bool
	// reloaded is when configuration was last adopted, and refused the class of
	// the failure that keeps the configuration as it is now from being used.
	reloaded time.Time
	refused  string
	// replaced is closed when another generation has been adopted.
	replaced chan struct{}
}

// New makes a KEK and registers its metrics.
func New(opts Options) *KEK {
	if opts.Logger == nil {
		opts.Logger = zap.NewNop()
	}
	if opts.Registerer == nil {
		opts.Registerer = prometheus.NewRegistry()
	}
	if opts.MaxVaultRequests == 0 {
		opts.MaxVaultRequests = 128
	}
	if opts.Look == nil {
		opts.Look = func() {}
	}
	k := &KEK{
		opts:  opts,
		log:   opts.Logger,
		vault: vault.NewMetrics(opts.Registerer),
		kick:  make(chan struct{}, 1),
		slots: make(chan struct{}, opts.MaxVaultRequests),
	}
	k.view.Store(&view{
		trouble:  fault.Errorf(fault.Unavailable, "no configuration has been read yet"),
		replaced: make(chan struct{}),
	})
	k.metrics = newMetrics(opts.Registerer, k)
	return k
}

// Run loads, reloads and probes until ctx is done, and returns once every
// client has been closed. The caller stops serving requests first.
func (k *KEK) Run(ctx context.Context) {
	var loops sync.WaitGroup
	loops.Go(func() { k.load(ctx) })
	loops.Go(func() { k.probe(ctx) })
	loops.Wait()
	if gen := k.Current(); gen != nil {
		k.discard(ctx, gen.client)
	}
	k.retiring.Wait()
}

// Current returns the generation in use, nil before the first adoption. A
// request calls it once.
func (k *KEK) Current() *Generation { return k.view.Load().gen }

// Adopted is closed once a generation has been adopted after the call. Together
// with [KEK.Current] it lets a caller wait for the first one: take the channel,
// look, then wait.
func (k *KEK) Adopted() <-chan struct{} { return k.view.Load().replaced }

// Status returns the key_id to announce, or why there is none to rely on. It
// makes no Vault call and never blocks.
//
// A Vault that is down or denies us does not change the answer within the
// outage grace: kube-apiserver then goes on with the seed it holds, and nothing
// that it writes is at risk. A lost key changes it at once, because what is
// written from then on could not be read back.
func (k *KEK) Status() (keyID string, err error) {
	v := k.view.Load()
	switch {
	case v.gen == nil:
		return "", v.trouble
	case v.trouble == nil:
		return v.gen.KeyID, nil
	case fault.ClassOf(v.trouble) == fault.KeyLost:
		return "", v.trouble
	}
	if time.Since(v.proven) > k.opts.OutageGrace {
		return "", fault.Errorf(fault.Unavailable, "vault could last be used at %s, longer ago than the grace of %s: %w",
			v.proven.UTC().Format(time.RFC3339), k.opts.OutageGrace, v.trouble)
	}
	return v.gen.KeyID, nil
}

// Degraded returns why the KEK cannot be used in full right now, nil if it can.
// Unlike [KEK.Status] it grants no grace.
func (k *KEK) Degraded() error { return k.view.Load().trouble }

// adopt makes next current if from still is, and retires from.
func (k *KEK) adopt(ctx context.Context, from, next *Generation, token vault.Token) bool {
	k.adopting.Lock()
	defer k.adopting.Unlock()
	old := k.view.Load()
	if old.gen != from {
		return false
	}
	next.Number = 1
	if from != nil {
		next.Number = from.Number + 1
	}
	v := &view{
		gen: next, proven: time.Now(), replaced: make(chan struct{}),
		token: token, final: from != nil && from.client == next.client && old.final,
		reloaded: old.reloaded, refused: old.refused,
	}
	// The prober replaces a generation by one of the same configuration.
	if from == nil || next.Digest != from.Digest {
		v.reloaded, v.refused = v.proven, ""
	}
	k.view.Store(v)
	k.retries.restore()
	close(old.replaced)
	if from != nil && from.client != next.client {
		k.retire(ctx, from.client)
	}
	return true
}

// note records how gen fares, unless it has been replaced meanwhile.
func (k *KEK) note(gen *Generation, change func(*view)) {
	k.update(func(v *view) {
		if v.gen == gen {
			change(v)
		}
	})
}

// update changes what is known beside the generation.
func (k *KEK) update(change func(*view)) {
	k.adopting.Lock()
	defer k.adopting.Unlock()
	next := *k.view.Load()
	change(&next)
	k.view.Store(&next)
}

// retire ends a replaced client when no request can still be using it: every
// request is bounded by RequestTimeout, which makes the timer a proof.
func (k *KEK) retire(ctx context.Context, client *vault.Client) {
	k.retiring.Go(func() {
		select {
		case <-time.After(k.opts.RequestTimeout):
		case <-ctx.Done():
		}
		k.end(ctx, client)
	})
}

// discard ends a client that no request uses. It does not wait for that.
func (k *KEK) discard(ctx context.Context, client *vault.Client) {
	k.retiring.Go(func() { k.end(ctx, client) })
}

// farewell bounds the revocation of a token when it is the last thing that the
// process does.
const farewell = time.Second

// end revokes a client's token, if it was made for that client alone, and closes
// the client.
func (k *KEK) end(ctx context.Context, client *vault.Client) {
	defer client.Close()
	within := k.opts.RequestTimeout
	if ctx.Err() != nil {
		within = min(within, farewell)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	if err := client.Revoke(ctx); err != nil {
		k.log.Info("a token that is no longer used could not be revoked; it dies by itself", zap.Error(err))
	}
}

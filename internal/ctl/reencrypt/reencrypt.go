// SPDX-License-Identifier: Apache-2.0

// Package reencrypt has kube-apiserver write objects anew that are not stored
// under the current key_id, so that older versions of the key can be retired.
//
// It sends each object an empty JSON merge patch. kube-apiserver applies that to
// the object as it is at that moment, inside its own compare-and-swap, so that an
// update made meanwhile is never lost. A patch that changes nothing is written
// nevertheless if what is in etcd is stale, which is said of data under another
// key_id or by another provider than the first, and is not written otherwise
// (GuaranteedUpdate in apiserver/pkg/storage/etcd3/store.go; TransformFromStorage
// in apiserver/pkg/storage/value/encrypt/envelope/kmsv2/envelope.go and in
// apiserver/pkg/storage/value/transformer.go).
//
// An API server judges by the key_id that its own plugin has told it, and skips
// an object without a word if it does not know of the new one yet. Therefore
// nothing is sent before all of them do; see [Options].
//
// Only metadata is asked for, in lists as in the answers to patches: no value of
// a Secret reaches this process.
package reencrypt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/client-go/rest"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

// Options say what is rewritten, and through whom.
type Options struct {
	// Config reaches the API server that objects are rewritten through; it may be
	// a load balancer before several. It is not changed.
	Config *rest.Config
	// APIServers are the URLs of all API servers, with Config's credentials. Nil
	// means those that the Service kubernetes names, if there are several, and
	// else Config's.
	APIServers []string
	// Plugins are the plugins of all API servers, by their operator's pages.
	Plugins []fleet.Node
	// Resources are named as in EncryptionConfiguration.
	Resources []string
	// Rate is how many patches are sent, in one second.
	Rate rate.Limit
	// Concurrency is how many patches are under way at once.
	Concurrency int
	// State is a file that remembers how far the work is, for the next run after
	// this one was ended; empty for none.
	State string
	// Stale finds what is to be rewritten in etcd; nil patches every object, which
	// the API server then writes or not.
	Stale Stale
	// Wait is how long the API servers may still take to know the new key_id.
	Wait time.Duration
	// Patience is how long an API server may be out of reach; 0 means 2 minutes.
	Patience time.Duration
	// Waiting is told why nothing is done, when that begins and when the reason
	// changes; nil tells nobody.
	Waiting func(reason string)
	// Progress is told how many objects of a resource are done, and how many
	// there are; nil tells nobody. It is called by one goroutine.
	Progress func(resource string, done, total int64)
}

// Report is what was done.
type Report struct {
	// KeyIDHash is that of the key_id that everything is under now.
	KeyIDHash string `json:"keyIDHash"`
	// APIServers are those that were held to it.
	APIServers []string `json:"apiServers"`
	// Resumed says that an earlier run had done a part. It is counted too.
	Resumed   bool       `json:"resumed"`
	Resources []Resource `json:"resources"`
}

// Resource is what became of the objects of one resource.
type Resource struct {
	Name string `json:"name"`
	// Objects is how many were patched: the sum of the next three and of Failures.
	Objects int `json:"objects"`
	// Rewritten were written anew, by this or meanwhile by somebody else.
	Rewritten int `json:"rewritten"`
	// Current were under the current key_id already.
	Current int `json:"current"`
	// Gone were deleted meanwhile.
	Gone     int       `json:"gone"`
	Failures []Failure `json:"failures,omitempty"`
}

// Failure is an object that could not be rewritten.
type Failure struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Reason    string `json:"reason"`
}

// Failed counts the objects that could not be rewritten.
func (r Report) Failed() (n int) {
	for _, res := range r.Resources {
		n += len(res.Failures)
	}
	return n
}

// maxFailures ends a run: so many have one cause.
const maxFailures = 100

// Run rewrites what is stale, until all is done or ctx is. Objects that could not
// be rewritten are in the report and no error; with Options.State the next run
// tries just these again, and a run that was ended goes on from there. The error
// says what to do.
func Run(ctx context.Context, o Options) (Report, error) {
	if o.Patience == 0 {
		o.Patience = 2 * time.Minute
	}
	c, err := connect(o)
	if err != nil {
		return Report{}, err
	}
	g, err := newGate(ctx, o, c)
	if err != nil {
		return Report{}, err
	}
	hash, err := g.await(ctx, o.Wait)
	if err != nil {
		return Report{}, fmt.Errorf("refusing to start, since what is rewritten now might stay under an older key_id: %w", err)
	}
	kinds, err := c.kinds(ctx, o.Resources)
	if err != nil {
		return Report{}, err
	}
	s, err := openState(ctx, o.State, c, hash)
	if err != nil {
		return Report{}, err
	}
	w := &walk{opts: o, cluster: c, gate: g, hash: hash, state: s, held: time.Now()}
	for _, k := range kinds {
		if err := w.resource(ctx, k); err != nil {
			return Report{}, w.ended(ctx, k.name, err)
		}
	}
	if err := g.hold(ctx, hash, o.Patience); err != nil {
		return Report{}, err
	}
	r := Report{KeyIDHash: hash, APIServers: g.names(), Resumed: s.resumed}
	for _, k := range kinds {
		r.Resources = append(r.Resources, s.of(k.name).Resource)
	}
	if r.Failed() == 0 {
		return r, s.remove()
	}
	return r, nil
}

// ended says how to go on after err.
func (w *walk) ended(ctx context.Context, resource string, err error) error {
	if ctx.Err() != nil {
		err = errors.New("stopped")
	}
	how := "run it again: what is done already is not written again"
	if w.opts.State != "" {
		how = "run it again with the same --state to go on from there"
	}
	return fmt.Errorf("after %d objects of %s: %w: %s", w.state.of(resource).Objects, resource, err, how)
}

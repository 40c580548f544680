// SPDX-License-Identifier: Apache-2.0

// Package reencrypt makes kube-apiserver rewrite the objects that are not stored
// under the current key_id, so that older versions of the key can be retired.
//
// It sends an empty JSON merge patch for each object. kube-apiserver applies it to
// the current object, inside its own compare-and-swap, so that no concurrent update
// is lost. kube-apiserver writes an object that the patch does not change only if the
// stored data is stale: under another key_id, or by another provider than the first
// (GuaranteedUpdate in apiserver/pkg/storage/etcd3/store.go; TransformFromStorage
// in apiserver/pkg/storage/value/encrypt/envelope/kmsv2/envelope.go and in
// apiserver/pkg/storage/value/transformer.go).
//
// An API server compares with the key_id that its own plugin has announced to it. If
// it does not know the new key_id yet, it silently skips the object. Therefore
// nothing is sent before all API servers know it; see [Options].
//
// Lists and answers to patches have only metadata: no value of a Secret reaches this
// process.
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

// Options say what to rewrite, and through which API servers.
type Options struct {
	// Config is for the API server that rewrites the objects, or for a load balancer.
	// It is not changed.
	Config *rest.Config
	// APIServers are the URLs of all API servers, which accept Config's credentials.
	// Nil means those of the Service kubernetes if there are several, else Config's.
	APIServers []string
	// Plugins are the ops endpoints of the plugins of all API servers.
	Plugins []fleet.Node
	// Resources are named as in EncryptionConfiguration.
	Resources []string
	// Rate is the maximum number of patches per second.
	Rate rate.Limit
	// Concurrency is the maximum number of concurrent patches.
	Concurrency int
	// State is a checkpoint file, from which the next run resumes; "" for none.
	State string
	// Stale finds in etcd which objects to rewrite. If it is nil, every object is
	// patched, and the API server decides which to write.
	Stale Stale
	// Wait is how long to wait for the API servers to learn the new key_id.
	Wait time.Duration
	// Patience is how long an API server may be unreachable; 0 means 2 minutes.
	Patience time.Duration
	// Waiting is called with the reason when a wait begins and when the reason
	// changes; may be nil.
	Waiting func(reason string)
	// Progress is called with the number of objects of a resource that are done, and
	// their total; may be nil. It is not called concurrently.
	Progress func(resource string, done, total int64)
}

// Report is the result of a run.
type Report struct {
	// KeyIDHash is the hash of the current key_id.
	KeyIDHash string `json:"keyIDHash"`
	// APIServers are those that were checked to know it.
	APIServers []string `json:"apiServers"`
	// Resumed says that the run resumed an earlier one, whose objects count too.
	Resumed   bool       `json:"resumed"`
	Resources []Resource `json:"resources"`
}

// Resource is the result for one resource.
type Resource struct {
	Name string `json:"name"`
	// Objects is how many were patched: the sum of the next three and of Failures.
	Objects int `json:"objects"`
	// Rewritten counts the objects that were written, by us or another client.
	Rewritten int `json:"rewritten"`
	// Current counts those that were under the current key_id already.
	Current int `json:"current"`
	// Gone counts those that were deleted during the run.
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

// maxFailures ends a run: so many failures have one cause.
const maxFailures = 100

// Run rewrites the stale objects, until all are done or ctx is. An object that could
// not be rewritten is in the report and is not an error. With Options.State, the next
// run retries only these objects, or resumes an interrupted run. The error says what
// to do.
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
		return Report{}, fmt.Errorf("not started, because objects could stay under an older key_id: %w", err)
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

// ended adds to err how to resume.
func (w *walk) ended(ctx context.Context, resource string, err error) error {
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	how := "run this again; objects that are done are not written again"
	if w.opts.State != "" {
		how = "run this again with the same --state to resume"
	}
	return fmt.Errorf("after %d objects of %s: %w: %s", w.state.of(resource).Objects, resource, err, how)
}

// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// walk goes through the objects of all resources.
type walk struct {
	opts    Options
	cluster *cluster
	gate    *gate
	hash    string
	state   *state
	// held is when the gate was last checked. Written says whether an API server
	// has reported that it writes under the key_id.
	held    time.Time
	written bool
}

// holdEvery is how often the gate is checked during the run.
const holdEvery = 30 * time.Second

// resource rewrites the objects of one resource.
func (w *walk) resource(ctx context.Context, k kind) error {
	p := w.state.of(k.name)
	if w.opts.Stale != nil {
		return w.stale(ctx, k, p)
	}
	if err := w.again(ctx, k, p); err != nil {
		return err
	}
	for !p.Finished {
		list, err := w.cluster.page(ctx, k, p.Continue)
		if err != nil {
			return err
		}
		done, err := w.rewrite(ctx, k, list.Items)
		if err != nil {
			return err
		}
		p.Continue, p.Finished = list.Continue, list.Continue == ""
		var remaining int64
		if list.RemainingItemCount != nil {
			remaining = *list.RemainingItemCount
		}
		if err := w.done(ctx, p, done, remaining); err != nil {
			return err
		}
	}
	return nil
}

// done counts objects, saves the state, and returns an error if the run must end.
func (w *walk) done(ctx context.Context, p *position, done Resource, remaining int64) error {
	p.add(done)
	if err := w.state.save(); err != nil {
		return err
	}
	if w.opts.Progress != nil {
		w.opts.Progress(p.Name, int64(p.Objects), int64(p.Objects)+max(remaining, 0))
	}
	if n := len(p.Failures); n >= maxFailures {
		last := p.Failures[n-1]
		return fmt.Errorf("%d objects failed, the last of them %s: %s", n, path(last.Namespace, last.Name), last.Reason)
	}
	return w.check(ctx, done.Rewritten > 0)
}

// check checks the gate from time to time, and once after the first write, to verify
// that it was under this key_id.
func (w *walk) check(ctx context.Context, wrote bool) error {
	proof := wrote && !w.written
	if !proof && time.Since(w.held) < holdEvery {
		return nil
	}
	if err := w.gate.hold(ctx, w.hash, w.opts.Patience); err != nil {
		return err
	}
	w.held = time.Now()
	if proof && !w.gate.written {
		return fmt.Errorf("no API server has written under the key_id with hash %s: make Trousseau the first provider for the resource in EncryptionConfiguration, and name every API server with --api-server", w.hash)
	}
	w.written = w.written || proof
	return nil
}

// again retries the failures of an earlier run.
func (w *walk) again(ctx context.Context, k kind, p *position) error {
	if len(p.Failures) == 0 {
		return nil
	}
	var items []metav1.PartialObjectMetadata
	for _, f := range p.Failures {
		items = append(items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: f.Name}})
	}
	done, err := w.rewrite(ctx, k, items)
	if err != nil {
		return err
	}
	p.Objects -= len(p.Failures)
	p.Failures = nil
	p.add(done)
	return w.state.save()
}

// rewrite patches objects. Errors about a single object are counted, not returned.
func (w *walk) rewrite(ctx context.Context, k kind, items []metav1.PartialObjectMetadata) (done Resource, err error) {
	var lock sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(w.opts.Concurrency)
	for _, item := range items {
		group.Go(func() error {
			revision, err := w.cluster.patch(ctx, k, item.Namespace, item.Name)
			var lost serverLost
			if errors.As(err, &lost) || err != nil && ctx.Err() != nil {
				return err
			}
			lock.Lock()
			defer lock.Unlock()
			done.Objects++
			switch {
			case apierrors.IsNotFound(err):
				done.Gone++
			case err != nil:
				done.Failures = append(done.Failures, Failure{item.Namespace, item.Name, reason(err)})
			case revision == item.ResourceVersion:
				done.Current++
			default:
				done.Rewritten++
			}
			return nil
		})
	}
	err = group.Wait()
	return done, err
}

// patch makes the API server write an object if it is stale, and returns its
// resourceVersion. There is no precondition: the API server writes the object as it
// is when the patch arrives.
func (c *cluster) patch(ctx context.Context, k kind, namespace, name string) (revision string, err error) {
	err = c.persist(ctx, c.limiter.Wait, func(ctx context.Context) error {
		object, err := c.metadata.Resource(k.gvr).Namespace(namespace).Patch(ctx, name, types.MergePatchType, []byte(`{}`),
			metav1.PatchOptions{FieldManager: "trousseauctl"})
		if err == nil {
			revision = object.ResourceVersion
		}
		return err
	})
	return revision, err
}

func path(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

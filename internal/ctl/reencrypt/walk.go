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
	// held is when the gate was last looked at; written, whether an API server
	// has then said that it writes under the key_id.
	held    time.Time
	written bool
}

// holdEvery is how often the gate is looked at on the way.
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

// done counts objects, and sees whether to go on.
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
		return fmt.Errorf("%d could not be rewritten, the last of them, %s, because %s", n, path(last.Namespace, last.Name), last.Reason)
	}
	return w.look(ctx, done.Rewritten > 0)
}

// look holds the API servers to the key_id, now and then, and once after
// something was written, to see that it was under this key_id.
func (w *walk) look(ctx context.Context, wrote bool) error {
	proof := wrote && !w.written
	if !proof && time.Since(w.held) < holdEvery {
		return nil
	}
	if err := w.gate.hold(ctx, w.hash, w.opts.Patience); err != nil {
		return err
	}
	w.held = time.Now()
	if proof && !w.gate.written {
		return fmt.Errorf("no API server has written under the key_id with the hash %s: make Trousseau's the first provider for the resource in EncryptionConfiguration, and see that --api-server names every API server", w.hash)
	}
	w.written = w.written || proof
	return nil
}

// again tries what an earlier run could not rewrite.
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

// rewrite patches objects. An error is none of a single object.
func (w *walk) rewrite(ctx context.Context, k kind, items []metav1.PartialObjectMetadata) (done Resource, err error) {
	var lock sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(w.opts.Concurrency)
	for _, item := range items {
		group.Go(func() error {
			revision, err := w.cluster.patch(ctx, k, item.Namespace, item.Name)
			var away outOfReach
			if errors.As(err, &away) || err != nil && ctx.Err() != nil {
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

// patch has an object written if it is stale, and returns its resourceVersion.
// There is no precondition: whatever the object is when the patch arrives, that is
// what is written.
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

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

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// walk goes through the objects of all resources.
type walk struct {
	opts     Options
	cluster  *cluster
	gate     *gate
	kinds    []kind
	hash     string
	state    *state
	findings []finding.Finding
	// Of the present resource: refused counts the failures since the last success, and
	// proven says that its first write was by the right provider.
	refused int
	proven  bool
	// held is when the gate was last checked.
	held time.Time
}

// holdEvery is how often the gate is checked during the run.
const holdEvery = 30 * time.Second

// resource rewrites the objects of one resource, the one at index i.
func (w *walk) resource(ctx context.Context, i int, k kind) error {
	p := w.state.of(k.name)
	if w.gate.writers != nil {
		if p.Provider != "" && p.Provider != w.gate.writers[i] {
			*p = position{Resource: Resource{Name: k.name}} // the state is of another provider
		}
		p.Provider = w.gate.writers[i]
	}
	w.refused, w.proven = 0, false
	migrated, err := w.migrate(ctx, k, p)
	switch {
	case err != nil:
		return err
	case w.opts.Stale != nil:
		err = w.stale(ctx, k, p)
	case !migrated:
		err = w.pages(ctx, k, p)
	}
	if err != nil {
		return err
	}
	if err := w.check(ctx); err != nil {
		return err
	}
	return w.settle(k, p)
}

// pages patches all objects.
func (w *walk) pages(ctx context.Context, k kind, p *position) error {
	if err := w.again(ctx, k, p); err != nil {
		return err
	}
	for !p.Finished {
		list, err := w.cluster.page(ctx, k, p.Continue)
		var answer apierrors.APIStatus
		var lost serverLost
		switch {
		case errors.As(err, &answer) && !errors.As(err, &lost):
			return problem{NotListed, fmt.Sprintf("kube-apiserver does not list %s: %s", k.name, reason(err)), "Fix the cause, and run this again."}
		case err != nil:
			return err
		}
		remaining := 0
		if list.RemainingItemCount != nil {
			remaining = int(*list.RemainingItemCount)
		}
		done, _, err := w.rewrite(ctx, k, list.Items, remaining)
		p.here.add(done)
		if err != nil {
			p.partial = done
			return err
		}
		p.add(done)
		p.Continue, p.Finished = list.Continue, list.Continue == ""
		if err := w.done(ctx, k, p, done.Rewritten > 0); err != nil {
			return err
		}
	}
	return nil
}

// done saves the state, and returns an error if the work must end: after the first
// write, if that was by another provider, and if the gate has closed.
func (w *walk) done(ctx context.Context, k kind, p *position, wrote bool) error {
	if err := w.state.save(); err != nil {
		return err
	}
	proof := wrote && !w.proven
	if !proof && time.Since(w.held) < holdEvery {
		return nil
	}
	if err := w.check(ctx); err != nil || !proof {
		return err
	}
	w.proven = true
	return w.settle(k, p)
}

func (w *walk) check(ctx context.Context) error {
	if err := w.gate.hold(ctx, w.hash, w.opts.Patience); err != nil {
		return err
	}
	w.held = time.Now()
	return nil
}

// again retries the failures of an earlier run.
func (w *walk) again(ctx context.Context, k kind, p *position) error {
	if len(p.Failures) == 0 {
		return nil
	}
	failures := p.Failures
	var items []metav1.PartialObjectMetadata
	for _, f := range failures {
		items = append(items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: f.Name}})
	}
	p.Objects -= len(failures)
	p.Failures = nil
	done, handled, err := w.rewrite(ctx, k, items, 0)
	p.add(done)
	p.here.add(done)
	for i, f := range failures {
		if !handled[i] {
			p.add(Resource{Objects: 1, Failures: []Failure{f}})
		}
	}
	return errors.Join(err, w.state.save())
}

// rewrite patches objects, and tells which of them have got a final answer. Errors about
// a single object are counted, not returned. There are remaining ones after these.
func (w *walk) rewrite(ctx context.Context, k kind, items []metav1.PartialObjectMetadata, remaining int) (done Resource, handled []bool, err error) {
	handled = make([]bool, len(items))
	before := w.state.of(k.name).Objects
	var lock sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(w.opts.Concurrency)
	for i, item := range items {
		group.Go(func() error {
			revision, err := w.cluster.patch(ctx, k, item.Namespace, item.Name, w.opts.DryRun)
			var lost serverLost
			if errors.As(err, &lost) || err != nil && ctx.Err() != nil {
				return err
			}
			lock.Lock()
			defer lock.Unlock()
			handled[i] = true
			done.Objects++
			if w.opts.Progress != nil {
				w.opts.Progress(k.name, int64(before+done.Objects), int64(before+len(items)+remaining))
			}
			switch {
			case apierrors.IsNotFound(err):
				done.Gone++
			case err != nil:
				done.Failures = append(done.Failures, Failure{item.Namespace, item.Name, reason(err)})
				if w.refused++; w.refused == w.opts.MaxRefusals {
					return problem{Stopped, fmt.Sprintf("%s were refused in a row, the last of them %s: %s", text.Count(w.refused, "object"), path(item.Namespace, item.Name), reason(err)),
						"Fix the cause, or raise --max-refusals to reach the rest of the resource."}
				}
				return nil
			case w.opts.DryRun:
			case revision == item.ResourceVersion:
				done.Current++
			default:
				done.Rewritten++
			}
			w.refused = 0
			return nil
		})
	}
	err = group.Wait()
	return done, handled, err
}

// patch makes the API server write an object if it is stale, and returns its
// resourceVersion. There is no precondition: the API server writes the object as it
// is when the patch arrives.
func (c *cluster) patch(ctx context.Context, k kind, namespace, name string, dryRun bool) (revision string, err error) {
	options := metav1.PatchOptions{FieldManager: "trousseauctl"}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	err = c.persist(ctx, c.limiter.Wait, func(ctx context.Context) error {
		object, err := c.metadata.Resource(k.gvr).Namespace(namespace).Patch(ctx, name, types.MergePatchType, []byte(`{}`), options)
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

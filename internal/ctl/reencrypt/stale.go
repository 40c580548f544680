// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Stale calls each for the objects of a resource that etcd holds under a provider and a
// key_id that are not current; a value in the clear has neither. The path is
// namespace/name, or only a name; the revision is the etcd revision at which the object
// was written. An error of each ends the search and is returned.
type Stale func(ctx context.Context, resource string, current func(provider, keyIDHash string) bool, each func(path string, revision int64) error) error

// current tells what needs no patch. As long as two names of the plugin could be that of
// the provider that writes, nothing is current: the API server decides.
func (w *walk) current(p *position) func(provider, keyIDHash string) bool {
	writer := p.Provider
	if writer == "" && len(w.gate.providers) == 1 {
		writer = w.gate.providers[0]
	}
	return func(provider, keyIDHash string) bool { return provider == writer && keyIDHash == w.hash }
}

// find calls each for the stale objects in etcd.
func (w *walk) find(ctx context.Context, k kind, p *position, each func(path string, revision int64) error) error {
	if err := w.opts.Stale(ctx, k.name, w.current(p), each); err != nil {
		return fmt.Errorf("finding stale objects in etcd: %w", err)
	}
	return nil
}

func (w *walk) count(ctx context.Context, k kind, p *position) (n int, err error) {
	err = w.find(ctx, k, p, func(string, int64) error { n++; return nil })
	return n, err
}

// stale rewrites the stale objects in etcd. These include the failures of an earlier
// run, but not what it has rewritten.
func (w *walk) stale(ctx context.Context, k kind, p *position) error {
	p.Objects -= len(p.Failures)
	p.Failures = nil
	remaining, err := w.count(ctx, k, p)
	if err != nil {
		return err
	}
	var items []metav1.PartialObjectMetadata
	flush := func() error {
		remaining -= len(items)
		done, _, err := w.rewrite(ctx, k, items, remaining)
		items = items[:0]
		p.add(done)
		p.here.add(done)
		if err != nil {
			return err
		}
		return w.done(ctx, k, p, done.Rewritten > 0)
	}
	err = w.find(ctx, k, p, func(path string, revision int64) error {
		namespace, name, found := strings.Cut(path, "/")
		if !found {
			namespace, name = "", path
		}
		// A resourceVersion is etcd's revision.
		items = append(items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, ResourceVersion: strconv.FormatInt(revision, 10)}})
		if len(items) < w.cluster.pageSize {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Stale calls each for the objects of a resource that are stored in etcd under
// another key_id than the one with this hash. The path is namespace/name, or only a
// name; the revision is the etcd revision at which the object was written. An error
// of each ends the search and is returned.
type Stale func(ctx context.Context, resource, keyIDHash string, each func(path string, revision int64) error) error

// stale rewrites the stale objects in etcd. These include the failures of an earlier
// run, but not what it has rewritten.
func (w *walk) stale(ctx context.Context, k kind, p *position) error {
	p.Objects -= len(p.Failures)
	p.Failures = nil
	var remaining int64
	find := func(each func(string, int64) error) error {
		if err := w.opts.Stale(ctx, k.gvr.GroupResource().String(), w.hash, each); err != nil {
			return fmt.Errorf("finding stale objects in etcd: %w", err)
		}
		return nil
	}
	if err := find(func(string, int64) error { remaining++; return nil }); err != nil {
		return err
	}
	var items []metav1.PartialObjectMetadata
	flush := func() error {
		done, err := w.rewrite(ctx, k, items)
		if err != nil {
			return err
		}
		remaining -= int64(len(items))
		items = items[:0]
		return w.done(ctx, p, done, remaining)
	}
	err := find(func(path string, revision int64) error {
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

// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
)

// cluster is what is asked of the API server that objects are rewritten through.
type cluster struct {
	metadata metadata.Interface
	pages    rest.Interface
	config   *rest.Config
	limiter  *rate.Limiter
	patience time.Duration
	pageSize int
}

func connect(o Options) (*cluster, error) {
	config := clientConfig(o.Config)
	c := &cluster{config: config, limiter: rate.NewLimiter(o.Rate, 1), patience: o.Patience, pageSize: pageSize(o.Rate)}
	var err error
	if c.pages, err = apiserver.Pages(config, config.Host); err != nil {
		return nil, err
	}
	c.metadata, err = metadata.NewForConfig(config)
	return c, err
}

// clientConfig is a copy that leaves the rate to us, and prints no warnings of
// the API server's, which are about its API.
func clientConfig(given *rest.Config) *rest.Config {
	config := rest.CopyConfig(given)
	config.QPS = -1
	config.WarningHandlerWithContext = rest.NoWarnings{}
	config.UserAgent = "trousseauctl"
	return config
}

// identity tells this cluster from others.
func (c *cluster) identity(ctx context.Context) (string, error) {
	namespaces := schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	ns, err := c.metadata.Resource(namespaces).Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("reading the uid of namespace %s, by which --state knows the cluster: %w", metav1.NamespaceSystem, err)
	}
	return string(ns.UID), nil
}

// pageSize is how many objects are listed at once, and at most patched again
// after a kill: those of ten seconds, and not more than 200.
func pageSize(limit rate.Limit) int {
	return int(max(1, min(200, 10*limit)))
}

// page lists objects from a continue position on; an empty one is the beginning.
//
// A position is forgotten when etcd is compacted, after some 5 minutes, and the
// answer then has another that goes on from the same key at a newer revision.
// What changes between the two was written under the current key_id.
func (c *cluster) page(ctx context.Context, k kind, position string) (*metav1.PartialObjectMetadataList, error) {
	var list *metav1.PartialObjectMetadataList
	atOnce := func(context.Context) error { return nil }
	err := c.persist(ctx, atOnce, func(ctx context.Context) (err error) {
		list, err = c.metadata.Resource(k.gvr).List(ctx, metav1.ListOptions{Limit: int64(c.pageSize), Continue: position})
		var status apierrors.APIStatus
		if position != "" && apierrors.IsResourceExpired(err) && errors.As(err, &status) {
			position = status.Status().Continue // empty begins anew
			list, err = c.metadata.Resource(k.gvr).List(ctx, metav1.ListOptions{Limit: int64(c.pageSize), Continue: position})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", k.name, err)
	}
	return list, nil
}

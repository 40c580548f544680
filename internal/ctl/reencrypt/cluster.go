// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
)

// cluster is a client of the API server that rewrites the objects.
type cluster struct {
	metadata metadata.Interface
	pages    rest.Interface
	config   *rest.Config
	limiter  *rate.Limiter
	patience time.Duration
	pageSize int
	// As of kinds: why the server did not list all of its resources, and whether it
	// serves Migration.
	failed   error
	migrates bool
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

// clientConfig returns a copy without client-go's rate limit, because we have our
// own, and without the API server's deprecation warnings.
func clientConfig(given *rest.Config) *rest.Config {
	config := rest.CopyConfig(given)
	config.QPS = -1
	config.WarningHandlerWithContext = rest.NoWarnings{}
	config.UserAgent = "trousseauctl"
	return config
}

// identity returns an ID of this cluster.
func (c *cluster) identity(ctx context.Context) (string, error) {
	namespaces := schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	ns, err := c.metadata.Resource(namespaces).Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("reading the uid of namespace %s, which identifies the cluster in --state: %w", metav1.NamespaceSystem, err)
	}
	return string(ns.UID), nil
}

// pageSize returns how many objects to list at once: as many as are patched in 10 s,
// and at most 200. After SIGKILL, so many may be patched again.
func pageSize(limit rate.Limit) int {
	return int(max(1, min(200, 10*limit)))
}

// ParseRate reads a rate of patches per second, minute or hour, such as 50/s, 600/m or
// 20000/h. Without a unit it is per second.
func ParseRate(s string) (rate.Limit, error) {
	number, unit, _ := strings.Cut(s, "/")
	n, err := strconv.ParseFloat(number, 64)
	per, known := map[string]time.Duration{"": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	if err != nil || !known || !(n > 0) || math.IsInf(n, 0) || strings.HasSuffix(s, "/") {
		return 0, fmt.Errorf("%q is not a rate such as 50/s, 600/m or 20000/h", s)
	}
	return rate.Limit(n / per.Seconds()), nil
}

// page lists objects from a continue position on; "" is the beginning.
//
// A position expires when etcd is compacted, after about 5 minutes. The answer then
// has a new one, which continues at the same key and a newer revision. Objects that
// changed between the two revisions were written under the current key_id.
func (c *cluster) page(ctx context.Context, k kind, position string) (*metav1.PartialObjectMetadataList, error) {
	var list *metav1.PartialObjectMetadataList
	atOnce := func(context.Context) error { return nil }
	err := c.persist(ctx, atOnce, func(ctx context.Context) (err error) {
		list, err = c.metadata.Resource(k.gvr).List(ctx, metav1.ListOptions{Limit: int64(c.pageSize), Continue: position})
		var status apierrors.APIStatus
		if position != "" && apierrors.IsResourceExpired(err) && errors.As(err, &status) {
			position = status.Status().Continue // "" starts over
			list, err = c.metadata.Resource(k.gvr).List(ctx, metav1.ListOptions{Limit: int64(c.pageSize), Continue: position})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", k.name, err)
	}
	return list, nil
}

// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// kind is a resource as the API server serves it.
type kind struct {
	name string // as in EncryptionConfiguration
	gvr  schema.GroupVersionResource
}

// kinds looks up resources by name or wildcard, and returns them in the same order.
func (c *cluster) kinds(ctx context.Context, names []string) ([]kind, error) {
	client, err := discovery.NewDiscoveryClientForConfig(c.config)
	if err != nil {
		return nil, err
	}
	// An aggregated API server that is down does not hide the other groups.
	lists, err := client.ServerPreferredResourcesWithContext(ctx)
	switch {
	case apierrors.IsUnauthorized(err):
		return nil, errCredentials(c.config.Host)
	case err != nil && len(lists) == 0:
		return nil, fmt.Errorf("asking %s for its resources: %w", c.config.Host, err)
	}
	c.failed = err
	var served []schema.GroupVersionResource
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "patch"}}, lists) {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range list.APIResources {
			served = append(served, version.WithResource(r.Name))
		}
	}
	c.migrates = slices.Contains(served, migrations)
	var kinds []kind
	for _, name := range names {
		found, err := c.matching(name, served)
		if err != nil {
			return nil, err
		}
		for _, gvr := range found {
			if k := (kind{gvr.GroupResource().String(), gvr}); !slices.Contains(kinds, k) {
				kinds = append(kinds, k)
			}
		}
	}
	return kinds, nil
}

// matching returns the served resources that a name or wildcard of EncryptionConfiguration
// stands for.
func (c *cluster) matching(name string, served []schema.GroupVersionResource) ([]schema.GroupVersionResource, error) {
	pattern := schema.ParseGroupResource(name)
	var found []schema.GroupVersionResource
	var similar []string
	for _, gvr := range served {
		switch gr := gvr.GroupResource(); {
		case covers(pattern, gr) && (pattern == gr || gr.Group != "events.k8s.io"): // these are stored as events
			found = append(found, gvr)
		case gr.Resource == pattern.Resource:
			similar = append(similar, gr.String())
		}
	}
	switch {
	case pattern.Resource == "*" && c.failed != nil:
		return nil, fmt.Errorf("asking %s what %s stands for: %w", c.config.Host, name, c.failed)
	case len(found) > 0:
		return found, nil
	case len(similar) > 0:
		return nil, fmt.Errorf("%s has no resource %s that can be listed and patched: did you mean %s?", c.config.Host, name, strings.Join(similar, " or "))
	}
	return nil, fmt.Errorf("%s has no resource %s that can be listed and patched: name it as in EncryptionConfiguration, such as secrets or widgets.example.com", c.config.Host, name)
}

// covers reports whether a resource or wildcard of EncryptionConfiguration stands for gr:
// *. is the core group, *.apps another, and *.* all.
func covers(pattern, gr schema.GroupResource) bool {
	return pattern == gr || pattern.Resource == "*" && (pattern.Group == "*" || pattern.Group == gr.Group)
}

// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kind is a resource as the API server serves it.
type kind struct {
	name string // as in EncryptionConfiguration
	gvr  schema.GroupVersionResource
}

// kinds looks up resources by name, and returns them in the same order.
func (c *cluster) kinds(ctx context.Context, names []string) ([]kind, error) {
	var kinds []kind
	for _, name := range names {
		gvr, err := c.find(ctx, schema.ParseGroupResource(name))
		if err != nil {
			return nil, fmt.Errorf("asking %s for resource %s: %w", c.config.Host, name, err)
		}
		if gvr.Empty() {
			return nil, fmt.Errorf("%s has no resource %s that can be listed and patched: name it as in EncryptionConfiguration, such as secrets or widgets.example.com", c.config.Host, name)
		}
		kinds = append(kinds, kind{name, gvr})
	}
	return kinds, nil
}

// find returns an empty result if there is no such resource.
func (c *cluster) find(ctx context.Context, r schema.GroupResource) (schema.GroupVersionResource, error) {
	versions := []string{"v1"}
	root := "/api/"
	if r.Group != "" {
		var group metav1.APIGroup
		if err := c.get(ctx, "/apis/"+r.Group, &group); err != nil {
			return schema.GroupVersionResource{}, err
		}
		root = "/apis/" + r.Group + "/"
		versions = []string{group.PreferredVersion.Version}
		for _, v := range group.Versions {
			versions = append(versions, v.Version)
		}
	}
	for _, version := range versions {
		var list metav1.APIResourceList
		if err := c.get(ctx, root+version, &list); err != nil {
			return schema.GroupVersionResource{}, err
		}
		for _, served := range list.APIResources {
			if served.Name == r.Resource && slices.Contains(served.Verbs, "list") && slices.Contains(served.Verbs, "patch") {
				return r.WithVersion(version), nil
			}
		}
	}
	return schema.GroupVersionResource{}, nil
}

// get decodes a JSON page into v. If there is no such page, v stays unchanged.
func (c *cluster) get(ctx context.Context, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	text, err := c.pages.Get().AbsPath(path).SetHeader("Accept", "application/json").Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

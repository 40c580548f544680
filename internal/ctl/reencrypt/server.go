// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
)

// answering is the time limit for one check of one API server.
const answering = 30 * time.Second

// view returns what an API server knows about key_ids, after it has asked its plugins.
func view(ctx context.Context, s *apiserver.Server) (apiserver.KeyIDs, error) {
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	err := s.KMSProviders(ctx)
	switch {
	case err == nil, apierrors.IsNotFound(err):
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
		return apiserver.KeyIDs{}, locked(s, err)
	default:
		return apiserver.KeyIDs{}, fmt.Errorf("the API server %s is not ready; check /readyz/kms-providers: %s", s.URL(), reason(err))
	}
	ids, err := s.KeyIDs(ctx)
	switch {
	case err == nil:
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
		return ids, locked(s, err)
	default:
		return ids, fmt.Errorf("reading the metrics of the API server %s: %s", s.URL(), reason(err))
	}
	if len(ids.Told) == 0 {
		return ids, fmt.Errorf("the API server %s has no KMS v2 plugin: add one to its EncryptionConfiguration", s.URL())
	}
	return ids, nil
}

// locked is the error if an API server refuses our credentials.
func locked(s *apiserver.Server, err error) error {
	if apierrors.IsUnauthorized(err) {
		return errCredentials(s.URL())
	}
	return permanent{fmt.Errorf("the API server %s denies access to the kubeconfig's user (403): allow get on the nonResourceURLs /metrics and /readyz/*", s.URL())}
}

func errCredentials(url string) error {
	return permanent{fmt.Errorf("the API server %s does not accept the kubeconfig's credentials (401): check that they are still valid", url)}
}

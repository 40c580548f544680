// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
)

// answering bounds what one look at one API server takes.
const answering = 30 * time.Second

// view looks at what an API server knows of key_ids, once it has asked its plugins
// itself.
func view(ctx context.Context, s *apiserver.Server) (apiserver.KeyIDs, error) {
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	err := s.KMSProviders(ctx)
	switch {
	case err == nil, apierrors.IsNotFound(err):
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
		return apiserver.KeyIDs{}, locked(s, err)
	default:
		return apiserver.KeyIDs{}, fmt.Errorf("the API server %s is not ready, see its page /readyz/kms-providers: %s", s.URL(), reason(err))
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
		return ids, fmt.Errorf("the API server %s has no KMS v2 plugin: give it an EncryptionConfiguration with one", s.URL())
	}
	return ids, nil
}

// locked says whom an API server does not let in.
func locked(s *apiserver.Server, err error) error {
	if apierrors.IsUnauthorized(err) {
		return lasting{fmt.Errorf("the API server %s does not accept the kubeconfig's credentials (401): see whether they are still valid", s.URL())}
	}
	return lasting{fmt.Errorf("the API server %s does not let the kubeconfig's user get its pages (403): allow get on the nonResourceURLs /metrics and /readyz/*", s.URL())}
}

// knows reports whether a plugin has told of the key_id with this hash.
func knows(ids apiserver.KeyIDs, hash string) bool {
	for _, told := range ids.Told {
		if told.Hash == hash {
			return true
		}
	}
	return false
}

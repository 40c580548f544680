// SPDX-License-Identifier: Apache-2.0

// Package apiserver asks one kube-apiserver about its KMS plugins: whether it can
// use them, and which key_ids they have announced to it. The daemon never links it.
package apiserver

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// Server is one kube-apiserver. It is safe for concurrent use. If the server has
// answered, the errors of its methods are those of apimachinery's pkg/api/errors.
type Server struct {
	url    string
	client rest.Interface
}

// New returns the API server at a URL. Requests use config's credentials.
func New(config *rest.Config, url string) (*Server, error) {
	client, err := Pages(config, url)
	if err != nil {
		return nil, err
	}
	return &Server{url: url, client: client}, nil
}

// Pages returns a client for paths that are not typed objects, such as /metrics,
// at the server with this URL. It does not change config.
func Pages(config *rest.Config, url string) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"}) // for errors
	config = rest.CopyConfig(config)
	config.Host = url
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	return rest.UnversionedRESTClientFor(config)
}

// URL returns the URL that New was given.
func (s *Server) URL() string { return s.url }

// Livez checks /livez.
func (s *Server) Livez(ctx context.Context) error { return s.page(ctx, "/livez") }

// KMSProviders checks that the API server can use all of its KMS plugins. The API
// server calls Status of each for it, unless it has done so within 20 seconds. The
// check fails if a plugin's key_id is not the one that the API server writes under
// (check and rotateDEKOnKeyIDChange in
// apiserver/pkg/server/options/encryptionconfig/config.go). Without any plugin the
// error is a NotFound.
func (s *Server) KMSProviders(ctx context.Context) error {
	err := s.page(ctx, "/readyz/kms-providers")
	if !apierrors.IsNotFound(err) {
		return err
	}
	// With a KMS v1 plugin and without automatic reload, each provider has its own
	// page (LoadEncryptionConfig in the same file).
	for i := 0; ; i++ {
		one := s.page(ctx, fmt.Sprintf("/readyz/kms-provider-%d", i))
		switch {
		case one == nil:
		case i > 0 && apierrors.IsNotFound(one):
			return nil
		default:
			return one
		}
	}
}

func (s *Server) page(ctx context.Context, path string) error {
	return s.client.Get().AbsPath(path).Do(ctx).Error()
}

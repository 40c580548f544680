// SPDX-License-Identifier: Apache-2.0

// Package apiserver asks one kube-apiserver what it makes of its KMS plugins:
// whether it can use them, and which key_ids they have told it. The daemon never
// links it.
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

// Server is one kube-apiserver. It is safe for concurrent use. The errors of its
// methods are those of apimachinery's pkg/api/errors where there was an answer.
type Server struct {
	url    string
	client rest.Interface
}

// New returns the API server at a URL, to be asked with config's credentials.
func New(config *rest.Config, url string) (*Server, error) {
	client, err := Pages(config, url)
	if err != nil {
		return nil, err
	}
	return &Server{url: url, client: client}, nil
}

// Pages is a client for what is no object of a known type, at the server with
// this URL. Config is not changed.
func Pages(config *rest.Config, url string) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"}) // for errors
	config = rest.CopyConfig(config)
	config.Host = url
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	return rest.UnversionedRESTClientFor(config)
}

// URL is the one that was given.
func (s *Server) URL() string { return s.url }

// Livez asks whether it lives.
func (s *Server) Livez(ctx context.Context) error { return s.page(ctx, "/livez") }

// KMSProviders asks whether it can use its KMS plugins, all of them. That has it
// ask them for their Status, if it has not done so within 20 seconds, and is an
// error if the key_id that one answers is not the one that is written under (check
// and rotateDEKOnKeyIDChange in
// apiserver/pkg/server/options/encryptionconfig/config.go). Without any plugin the
// error is a NotFound.
func (s *Server) KMSProviders(ctx context.Context) error {
	err := s.page(ctx, "/readyz/kms-providers")
	if !apierrors.IsNotFound(err) {
		return err
	}
	// With a plugin of KMS v1, and without automatic reload, each provider has a
	// page of its own (LoadEncryptionConfig, ibid.).
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

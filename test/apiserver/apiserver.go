// SPDX-License-Identifier: Apache-2.0

// Package apiserver calls a KMS v2 plugin with kube-apiserver's own code: package
// encryptionconfig with its transformers, its health check and its background probe.
// Only etcd is missing; the caller keeps the bytes.
package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmsservice "k8s.io/kms/pkg/service"
)

// Timeout is the timeout of a call to the plugin: kube-apiserver's default.
const Timeout = 3 * time.Second

// CheckedGood and CheckedBad are how long kube-apiserver's health check caches a
// result before it asks the plugin again (kmsPluginHealthz{Positive,Negative}TTL in
// package encryptionconfig).
const (
	CheckedGood = 20 * time.Second
	CheckedBad  = 3 * time.Second
)

// Options describe one API server.
type Options struct {
	// Socket is the path of the plugin's socket.
	Socket string
	// Provider is the name in EncryptionConfiguration. It is part of every stored
	// value, and the key of kube-apiserver's test hooks.
	Provider string
	// Dir holds the EncryptionConfiguration file.
	Dir string
}

// Server is the encryption at rest of one API server. Its methods may be called
// concurrently.
type Server struct {
	provider    string
	transformer value.Transformer
	check       healthz.HealthChecker
	codec       runtime.Serializer
}

const encryptionConfiguration = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - kms:
      apiVersion: v2
      name: %s
      endpoint: unix://%s
      timeout: %s
`

// Load does what kube-apiserver does at its start: it reads an
// EncryptionConfiguration and asks the plugin for Status and, if that succeeds, for
// one Encrypt. If the plugin cannot answer, Load succeeds, but [Server.Check] fails.
// The server works until ctx is done.
func Load(ctx context.Context, o Options) (*Server, error) {
	file := filepath.Join(o.Dir, "encryption-"+o.Provider+".yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, encryptionConfiguration, o.Provider, o.Socket, Timeout), 0o600); err != nil {
		return nil, fmt.Errorf("writing EncryptionConfiguration: %w", err)
	}
	loaded, err := encryptionconfig.LoadEncryptionConfig(ctx, file, false, "")
	if err != nil {
		return nil, err
	}
	return &Server{
		provider:    o.Provider,
		transformer: loaded.Transformers[schema.GroupResource{Resource: "secrets"}],
		check:       loaded.HealthChecks[0],
		codec:       newCodec(),
	}, nil
}

// Check is /readyz/kms-providers. It asks the plugin unless it did so recently; see
// [CheckedGood] and [CheckedBad]. It adopts a new key_id from the plugin.
func (s *Server) Check(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/readyz/kms-providers", nil)
	if err != nil {
		return err
	}
	return s.check.Check(req)
}

// Dial returns kube-apiserver's own client for the plugin on a socket: each call is
// one call of the plugin. Provider is only a metric label. The connection is closed
// when ctx is done.
func Dial(ctx context.Context, socket, provider string) (kmsservice.Service, error) {
	return kmsv2.NewGRPCService(ctx, "unix://"+socket, provider, Timeout)
}

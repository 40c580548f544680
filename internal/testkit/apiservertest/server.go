// SPDX-License-Identifier: Apache-2.0

// Package apiservertest is a stateful fake of kube-apiserver with one KMS v2 plugin,
// for tests. It serves discovery, health endpoints, metrics and Secrets; a patch
// rewrites a stale Secret. It stores and serves only the metadata of Secrets.
//
// It writes under the key_id last reported to its first provider and treats Secrets
// under any other, or of another provider, as stale (GuaranteedUpdate in
// apiserver/pkg/storage/etcd3/store.go). Tests report a key_id with [Server.Learn].
package apiservertest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	migrationv1 "k8s.io/api/storagemigration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClusterUID is the UID of the namespace kube-system on every Server.
const ClusterUID = "6a3a7e0c-5b5e-4d59-9f4e-0d1f3f8f2c11"

// Namespace holds all Secrets.
const Namespace = "default"

// Options configures a Server. The zero value serves HTTP without authentication.
type Options struct {
	// TLS serves HTTPS and HTTP/2 with httptest's certificate. Use it with clients
	// made from a kubeconfig: they send their token only over HTTPS.
	TLS bool
	// Token is the bearer token that every request needs; empty disables
	// authentication.
	Token string
	// Migrates serves storagemigration.k8s.io/v1, as since Kubernetes 1.37.
	Migrates bool
}

// Server is one kube-apiserver. It is safe for concurrent use. It is also an
// http.Handler, so that it can be served at further addresses.
type Server struct {
	http  *httptest.Server
	mux   *http.ServeMux
	token string

	mu        sync.Mutex
	providers []string // the first one writes; "" is identity
	told      []keyID  // by the plugin, oldest first
	uses      map[use]int
	config    string
	secrets   []Secret // by name
	revision  int64
	onPatch   func(ctx context.Context, name string) *metav1.Status
	codes     map[string]int // path → status code answered instead
	published []netip.AddrPort
	compacts  bool
	requests  []Request
	under     int // patches in progress
	busiest   int

	migrates   bool
	idle       bool // no kube-controller-manager
	migrations map[string]*migrationv1.StorageVersionMigration
}

// Provider is the name of the provider of a new Server.
const Provider = "trousseau"

// keyID is the hash of a key_id and when it was last reported to a provider.
type keyID struct {
	provider, hash string
	at             time.Time
}

// use is how Secrets were read or written: through a provider.
type use struct {
	written  bool
	provider string
}

// Secret is the stored state of a Secret.
type Secret struct {
	Name string
	// Provider wrote it; empty for identity.
	Provider string
	// KeyIDHash is the hash of its key_id; empty for identity.
	KeyIDHash string
	// Revision is the etcd revision of the last write.
	Revision int64
	// Rewrites is the number of writes since Store.
	Rewrites int
}

// Request is a received request.
type Request struct {
	Method string
	URL    url.URL
	At     time.Time
}

// New starts an API server on a free port of 127.0.0.1. It has no Secrets, and no
// plugin until Learn. The caller must Close it.
func New(o Options) (*Server, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting fake kube-apiserver: %w", err)
	}
	s := &Server{
		token: o.Token, codes: make(map[string]int), providers: []string{Provider}, uses: make(map[use]int),
		migrates: o.Migrates, migrations: make(map[string]*migrationv1.StorageVersionMigration),
	}
	s.route()
	s.http = &httptest.Server{Listener: listener, Config: &http.Server{Handler: s}, EnableHTTP2: true}
	if o.TLS {
		s.http.StartTLS()
	} else {
		s.http.Start()
	}
	return s, nil
}

// URL returns its address.
func (s *Server) URL() string { return s.http.URL }

// Close stops the server and waits for all requests to end.
func (s *Server) Close() { s.http.Close() }

// Learn reports the key_id with this hash to all providers, as the plugin's Status
// would. The server uses it for all later writes.
func (s *Server) Learn(keyIDHash string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.providers {
		s.learn(p, keyIDHash)
	}
}

// LearnBy is Learn for one provider.
func (s *Server) LearnBy(provider, keyIDHash string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learn(provider, keyIDHash)
}

// learn makes a key_id the latest of a provider. Its time exceeds the previous one by
// more than the rounding of the metrics' floating-point values.
func (s *Server) learn(provider, hash string) {
	if provider == "" {
		return
	}
	s.told = slices.DeleteFunc(s.told, func(k keyID) bool { return k.provider == provider && k.hash == hash })
	at := time.Now()
	if n := len(s.told); n > 0 {
		if next := s.told[n-1].at.Add(10 * time.Millisecond); next.After(at) {
			at = next
		}
	}
	s.told = append(s.told, keyID{provider, hash, at})
}

// writer returns the provider and the hash of the key_id used for writes; empty for
// identity. The caller holds s.mu.
func (s *Server) writer() (provider, hash string) {
	for _, k := range s.told {
		if k.provider == s.providers[0] {
			hash = k.hash
		}
	}
	return s.providers[0], hash
}

// Load loads an EncryptionConfiguration with this hash, in which Secrets have these
// providers. The first one writes; "" is identity. Without any, no Secret is stale, and
// nothing is counted.
func (s *Server) Load(hash string, providers ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config, s.providers = hash, providers
}

// StopController stops kube-controller-manager: no migration begins any more.
func (s *Server) StopController() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = true
}

// Store adds n Secrets under the key_id with this hash, as if written by an earlier
// process: the metrics do not include them. They are named s00000 and so on.
func (s *Server) Store(n int, keyIDHash string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.revision++
		s.secrets = append(s.secrets, Secret{Name: fmt.Sprintf("s%05d", len(s.secrets)), Provider: Provider, KeyIDHash: keyIDHash, Revision: s.revision})
	}
}

// Secrets returns all Secrets, by name.
func (s *Server) Secrets() []Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.secrets)
}

// OnPatch calls answer with the name of the Secret before each patch, concurrently.
// A returned Status is the answer, and nothing is written; nil lets the patch
// proceed. answer may call methods of s and must return once ctx is done.
// OnPatch(nil) removes the hook.
func (s *Server) OnPatch(answer func(ctx context.Context, name string) *metav1.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onPatch = answer
}

// Answer makes a path, such as /livez, answer with this HTTP status and no body.
func (s *Server) Answer(path string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[path] = code
}

// Publish sets the addresses in the endpoints of the Service kubernetes, each an IP
// address and a port. Initially there are none.
func (s *Server) Publish(addrs ...netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published = addrs
}

// Compact makes every continue token expire before it is used, as if etcd were
// compacted before each request.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacts = true
}

// Requests returns all received requests, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Busiest returns the highest number of concurrent patches so far.
func (s *Server) Busiest() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busiest
}

// SPDX-License-Identifier: Apache-2.0

// Package apiservertest is a stateful fake of kube-apiserver with one KMS v2
// plugin, for tests: Secrets, which a patch has it write anew if they are stale,
// and its pages. Of Secrets it has and answers nothing but metadata.
//
// It writes under the key_id that its plugin has told it last, and thinks that
// what is under another is stale (GuaranteedUpdate in
// apiserver/pkg/storage/etcd3/store.go). Nothing is told by itself: see
// [Server.Learn].
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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClusterUID is the uid of the namespace kube-system, on every Server.
const ClusterUID = "6a3a7e0c-5b5e-4d59-9f4e-0d1f3f8f2c11"

// Namespace is where all Secrets are.
const Namespace = "default"

// Options configures a Server. The zero value is HTTP, open to everybody.
type Options struct {
	// TLS makes it speak HTTPS and HTTP/2, with httptest's certificate. A client
	// that was made of a kubeconfig shows its token to no other.
	TLS bool
	// Token is the bearer token that every request has to show; empty for none.
	Token string
}

// Server is one kube-apiserver. It is safe for concurrent use. It is also the
// handler of its own pages, to be served at further addresses.
type Server struct {
	http  *httptest.Server
	mux   *http.ServeMux
	token string

	mu        sync.Mutex
	told      []keyID // by the plugin, the last one last
	written   []keyID // under each of which something was
	demoted   bool
	secrets   []Secret // by name
	revision  int64
	onPatch   func(ctx context.Context, name string) *metav1.Status
	codes     map[string]int // path → what is answered instead
	published []netip.AddrPort
	compacts  bool
	requests  []Request
	under     int // patches under way
	busiest   int
}

// keyID is the hash of one, and when it was last told or written under.
type keyID struct {
	hash string
	at   time.Time
}

// Secret is how a Secret is stored.
type Secret struct {
	Name string
	// KeyIDHash is that of the key_id that it is under; empty for another provider.
	KeyIDHash string
	// Revision is etcd's, at which it was written.
	Revision int64
	// Rewrites is how often it was written since Store.
	Rewrites int
}

// Request is one that has arrived.
type Request struct {
	Method string
	URL    url.URL
	At     time.Time
}

// New starts an API server on a free port of 127.0.0.1. It has no Secrets, and no
// plugin before Learn. The caller must Close it.
func New(o Options) (*Server, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting fake kube-apiserver: %w", err)
	}
	s := &Server{token: o.Token, codes: make(map[string]int)}
	s.route()
	s.http = &httptest.Server{Listener: listener, Config: &http.Server{Handler: s}, EnableHTTP2: true}
	if o.TLS {
		s.http.StartTLS()
	} else {
		s.http.Start()
	}
	return s, nil
}

// URL is its address.
func (s *Server) URL() string { return s.http.URL }

// Close ends it, and returns when all its requests have ended.
func (s *Server) Close() { s.http.Close() }

// Learn is the plugin telling it of the key_id with this hash, under which it
// writes from now on.
func (s *Server) Learn(keyIDHash string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = record(s.told, keyIDHash)
}

// record puts a key_id last. Its time is later than that of the one before by more
// than what the metrics' floating point rounds off.
func record(ids []keyID, hash string) []keyID {
	ids = slices.DeleteFunc(ids, func(k keyID) bool { return k.hash == hash })
	at := time.Now()
	if n := len(ids); n > 0 {
		if next := ids[n-1].at.Add(10 * time.Millisecond); next.After(at) {
			at = next
		}
	}
	return append(ids, keyID{hash, at})
}

// writer is the hash of the key_id that is written under; empty for none. The
// caller holds s.mu.
func (s *Server) writer() string {
	if s.demoted || len(s.told) == 0 {
		return ""
	}
	return s.told[len(s.told)-1].hash
}

// Demote makes another provider the first of EncryptionConfiguration: that writes
// from now on, and the plugin only reads.
func (s *Server) Demote() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.demoted = true
}

// Store adds n Secrets under the key_id with this hash, as an earlier process may
// have written them: the metrics know nothing of it. They are named s00000 and on.
func (s *Server) Store(n int, keyIDHash string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.revision++
		s.secrets = append(s.secrets, Secret{Name: fmt.Sprintf("s%05d", len(s.secrets)), KeyIDHash: keyIDHash, Revision: s.revision})
	}
}

// Secrets are all there are, by name.
func (s *Server) Secrets() []Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.secrets)
}

// OnPatch has answer called with the name of a Secret before each patch, by
// several goroutines at once. A Status with a code is the answer, and nothing is
// written; nil lets the patch happen. It may call s, and has to return once ctx
// is done. Nil takes it away.
func (s *Server) OnPatch(answer func(ctx context.Context, name string) *metav1.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onPatch = answer
}

// Answer has a page, such as /livez, answered with this HTTP status and no more.
func (s *Server) Answer(path string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[path] = code
}

// Publish has the Service kubernetes name these addresses of API servers, each an
// IP address and a port. At first it names none.
func (s *Server) Publish(addrs ...netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published = addrs
}

// Compact has etcd compacted before each request from now on, so that no continue
// position is known any more when it is used.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacts = true
}

// Requests are all that have arrived, in their order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Busiest is how many patches were under way at once, at most.
func (s *Server) Busiest() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busiest
}

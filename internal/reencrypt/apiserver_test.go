// SPDX-License-Identifier: Apache-2.0

package reencrypt_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/trousseau-io/trousseau/internal/fleet"
	"github.com/trousseau-io/trousseau/internal/reencrypt"
)

// Hashes of key_ids.
const (
	older   = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	current = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	newer   = "sha256:3333333333333333333333333333333333333333333333333333333333333333"
)

// apiServer is what an API server shows of itself: Secrets, which it writes anew
// if they are stale, and its pages.
type apiServer struct {
	*httptest.Server

	mu        sync.Mutex
	uid       string // of kube-system
	id        string // of itself
	keyID     string // the hash of the one that it writes under
	ready     bool
	other     bool   // another provider writes
	endpoints string // EndpointSlices
	secrets   []*object
	revision  int
	compacted bool // continue positions are forgotten
	lists     []string
	patches   []patch
	under     int // patches under way
	busiest   int
	// onPatch answers instead, if it returns a code.
	onPatch func(name string) (code int, reason metav1.StatusReason)
	// hold makes a patch wait until it is closed.
	hold chan struct{}
}

type object struct {
	name     string
	revision int
	keyID    string
}

type patch struct {
	name string
	at   time.Time
}

// newAPIServer has n Secrets, the first half of which are under an older key_id.
func newAPIServer(t *testing.T, n int) *apiServer {
	t.Helper()
	s := &apiServer{uid: "one", id: "a", keyID: current, ready: true, revision: 1000}
	for i := range n {
		o := &object{name: fmt.Sprintf("s%05d", i), revision: i + 1, keyID: current}
		if i < n/2 {
			o.keyID = older
		}
		s.secrets = append(s.secrets, o)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz/kms-providers", func(w http.ResponseWriter, r *http.Request) {
		if !s.get(func() bool { return s.ready }) {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /api/v1", func(w http.ResponseWriter, r *http.Request) {
		answer(w, metav1.APIResourceList{APIResources: []metav1.APIResource{
			{Name: "secrets", Namespaced: true, Verbs: metav1.Verbs{"list", "patch"}},
			{Name: "bindings", Namespaced: true, Verbs: metav1.Verbs{"create"}},
		}})
	})
	mux.HandleFunc("GET /api/v1/namespaces/kube-system", func(w http.ResponseWriter, r *http.Request) {
		answer(w, metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"},
			ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: types.UID(s.uid)},
		})
	})
	mux.HandleFunc("GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"items":[`+s.endpoints+`]}`)
	})
	mux.HandleFunc("GET /api/v1/secrets", s.list)
	mux.HandleFunc("PATCH /api/v1/namespaces/default/secrets/{name}", s.patch)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *apiServer) get(what func() bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return what()
}

func (s *apiServer) metrics(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds"
	fmt.Fprintf(w, "# TYPE other counter\nother{a=\"b\"} 1\n# HELP %s x\n# TYPE %s gauge\n", status, status)
	fmt.Fprintf(w, "%s{apiserver_id_hash=%q,key_id_hash=%q,provider_name=\"trousseau\"} 1.7e9\n", status, s.id, older)
	fmt.Fprintf(w, "%s{apiserver_id_hash=%q,key_id_hash=%q,provider_name=\"trousseau\"} 1.8e9\n", status, s.id, s.keyID)
	if s.revision > 1000 && !s.other {
		use := "apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds"
		fmt.Fprintf(w, "# TYPE %s gauge\n%s{apiserver_id_hash=%q,key_id_hash=%q,provider_name=\"trousseau\",transformation_type=\"to_storage\"} 1.8e9\n", use, use, s.id, s.keyID)
	}
}

// list knows positions as kube-apiserver does: each is the next key.
func (s *apiServer) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadataList") {
		refuse(w, http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable, "")
		return
	}
	position := r.URL.Query().Get("continue")
	s.lists = append(s.lists, position)
	next := strings.TrimPrefix(position, "inconsistent:")
	if position != "" && next == position && s.compacted {
		refuse(w, http.StatusGone, metav1.StatusReasonExpired, "inconsistent:"+position)
		return
	}
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	list := metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadataList"}}
	var remaining int64
	for _, o := range s.secrets {
		switch {
		case o.name < next:
		case len(list.Items) == limit:
			if list.Continue == "" {
				list.Continue = o.name
			}
			remaining++
			list.RemainingItemCount = &remaining
		default:
			list.Items = append(list.Items, o.metadata())
		}
	}
	answer(w, list)
}

func (o *object) metadata() metav1.PartialObjectMetadata {
	return metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: o.name, UID: "u", ResourceVersion: strconv.Itoa(o.revision)},
	}
}

func (s *apiServer) patch(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	body, _ := io.ReadAll(r.Body)
	if string(body) != "{}" || r.Header.Get("Content-Type") != "application/merge-patch+json" ||
		!strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata") {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, "")
		return
	}
	s.mu.Lock()
	s.patches = append(s.patches, patch{name, time.Now()})
	s.under++
	s.busiest = max(s.busiest, s.under)
	on, hold := s.onPatch, s.hold
	s.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}
	if on != nil {
		if code, reason := on(name); code != 0 {
			s.mu.Lock()
			s.under--
			s.mu.Unlock()
			refuse(w, code, reason, "")
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.under--
	for _, o := range s.secrets {
		if o.name == name {
			if o.keyID != s.keyID {
				s.revision++
				o.revision, o.keyID = s.revision, s.keyID
			}
			answer(w, o.metadata())
			return
		}
	}
	refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, "")
}

// patched counts the patches.
func (s *apiServer) patched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.patches)
}

// stale counts what is under another key_id.
func (s *apiServer) stale() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.secrets {
		if o.keyID != current {
			n++
		}
	}
	return n
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, position string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, ListMeta: metav1.ListMeta{Continue: position},
		Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: "refused by the test",
	})
}

// plugin has the pages of one that encrypts under a key_id with this hash.
func plugin(t *testing.T, hash string) fleet.Node {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, `{"ready":true,"checks":[]}`) })
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "# TYPE trousseau_generation gauge\ntrousseau_generation 1\n# TYPE trousseau_key_info gauge\ntrousseau_key_info{key_id_hash=%q,key=\"k\",version=\"2\"} 1\n", hash)
	})
	pages := httptest.NewServer(mux)
	t.Cleanup(pages.Close)
	n, err := fleet.ParseNode(pages.URL)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// options rewrite the server's Secrets as fast as can be.
func options(t *testing.T, s *apiServer) reencrypt.Options {
	t.Helper()
	return reencrypt.Options{
		Config: &rest.Config{Host: s.URL}, Plugins: []fleet.Node{plugin(t, current)}, Resources: []string{"secrets"},
		Rate: 1e6, Concurrency: 8, Patience: 10 * time.Second,
	}
}

// found are copies of the objects that are not under a key_id.
func (s *apiServer) found(keyID string) (all []object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.secrets {
		if o.keyID != keyID {
			all = append(all, *o)
		}
	}
	return all
}

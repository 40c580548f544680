// SPDX-License-Identifier: Apache-2.0

package apiservertest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (s *Server) route() {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	s.mux.HandleFunc("GET /readyz/kms-providers", s.providers)
	s.mux.HandleFunc("GET /metrics", s.metrics)
	s.mux.HandleFunc("GET /api/v1", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, metav1.APIResourceList{APIResources: []metav1.APIResource{
			{Name: "secrets", Namespaced: true, Verbs: metav1.Verbs{"list", "patch"}},
			{Name: "bindings", Namespaced: true, Verbs: metav1.Verbs{"create"}},
		}})
	})
	s.mux.HandleFunc("GET /api/v1/namespaces/"+metav1.NamespaceSystem, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"},
			ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: ClusterUID},
		})
	})
	s.mux.HandleFunc("GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices", s.endpointSlices)
	s.mux.HandleFunc("GET /api/v1/secrets", s.list)
	s.mux.HandleFunc("PATCH /api/v1/namespaces/"+Namespace+"/secrets/{name}", s.patch)
}

// ServeHTTP answers like kube-apiserver.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, Request{Method: r.Method, URL: *r.URL, At: time.Now()})
	code := s.codes[r.URL.Path]
	s.mu.Unlock()
	switch {
	case s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token:
		refuse(w, metav1.Status{Code: http.StatusUnauthorized, Reason: metav1.StatusReasonUnauthorized, Message: "Unauthorized"})
	case code != 0:
		w.WriteHeader(code)
	default:
		s.mux.ServeHTTP(w, r)
	}
}

// providers answers 404 without a plugin.
func (s *Server) providers(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.told) == 0 {
		http.NotFound(w, r)
		return
	}
	_, _ = io.WriteString(w, "ok")
}

// metrics are those of
// apiserver/pkg/storage/value/encrypt/envelope/metrics/metrics.go, plus an unrelated
// one.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprint(w, "# TYPE other counter\nother{a=\"b\"} 1\n")
	s.gauge(w, "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds", "", s.told)
	s.gauge(w, "apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds", `,transformation_type="to_storage"`, s.written)
}

// gauge writes one sample per key_id. The server's address serves as its
// apiserver_id.
func (s *Server) gauge(w io.Writer, name, labels string, ids []keyID) {
	if len(ids) > 0 {
		fmt.Fprintf(w, "# HELP %s when\n# TYPE %s gauge\n", name, name)
	}
	for _, id := range ids {
		fmt.Fprintf(w, "%s{apiserver_id_hash=%q,key_id_hash=%q,provider_name=\"trousseau\"%s} %.6f\n",
			name, s.URL(), id.hash, labels, float64(id.at.UnixMicro())/1e6)
	}
}

// endpointSlice holds the fields of an EndpointSlice that clients use
// (discovery.k8s.io/v1).
type endpointSlice struct {
	Endpoints []endpoint `json:"endpoints"`
	Ports     []port     `json:"ports"`
}

type endpoint struct {
	Addresses []netip.Addr `json:"addresses"`
}

type port struct {
	Name string `json:"name"`
	Port uint16 `json:"port"`
}

// endpointSlices groups consecutive addresses with the same port into one slice, as
// kube-apiserver does.
func (s *Server) endpointSlices(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []endpointSlice{}
	for _, addr := range s.published {
		if n := len(items); n == 0 || items[n-1].Ports[0].Port != addr.Port() {
			items = append(items, endpointSlice{Ports: []port{{"https", addr.Port()}}})
		}
		last := &items[len(items)-1]
		last.Endpoints = append(last.Endpoints, endpoint{[]netip.Addr{addr.Addr()}})
	}
	answer(w, map[string]any{"items": items})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status metav1.Status) {
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	status.Status = metav1.StatusFailure
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	_ = json.NewEncoder(w).Encode(status)
}

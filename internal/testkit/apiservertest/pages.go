// SPDX-License-Identifier: Apache-2.0

package apiservertest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	migrationv1 "k8s.io/api/storagemigration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (s *Server) route() {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	s.mux.HandleFunc("GET /readyz/kms-providers", s.readyz)
	s.mux.HandleFunc("GET /metrics", s.metrics)
	s.mux.HandleFunc("GET /api", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	})
	s.mux.HandleFunc("GET /apis", s.groups)
	s.resources("v1", metav1.APIResource{Name: "secrets", Namespaced: true, Verbs: metav1.Verbs{"list", "patch"}},
		metav1.APIResource{Name: "bindings", Namespaced: true, Verbs: metav1.Verbs{"create"}})
	s.resources("apps/v1", metav1.APIResource{Name: "deployments", Namespaced: true, Verbs: metav1.Verbs{"list", "patch"}})
	s.mux.HandleFunc("GET /apis/apps/v1/deployments", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadataList"}})
	})
	if s.migrates {
		s.resources(migrationv1.SchemeGroupVersion.String(),
			metav1.APIResource{Name: "storageversionmigrations", Verbs: metav1.Verbs{"create", "get", "list", "patch"}})
		s.mux.HandleFunc("POST "+migrationsPath, s.migrate)
		s.mux.HandleFunc("GET "+migrationsPath+"/{name}", s.migration)
		s.mux.HandleFunc("DELETE "+migrationsPath+"/{name}", s.migration)
	}
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

// groups lists the API groups.
func (s *Server) groups(w http.ResponseWriter, _ *http.Request) {
	list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "APIGroupList"}}
	names := []string{"apps"}
	if s.migrates {
		names = append(names, migrationv1.GroupName)
	}
	for _, name := range names {
		version := metav1.GroupVersionForDiscovery{GroupVersion: name + "/v1", Version: "v1"}
		list.Groups = append(list.Groups, metav1.APIGroup{Name: name, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version})
	}
	answer(w, list)
}

// resources serves the resources of a version.
func (s *Server) resources(version string, resources ...metav1.APIResource) {
	path := "/apis/" + version
	if !strings.Contains(version, "/") {
		path = "/api/" + version
	}
	s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, metav1.APIResourceList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "APIResourceList"}, GroupVersion: version, APIResources: resources})
	})
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

// readyz answers 404 without a plugin.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.told) == 0 {
		http.NotFound(w, r)
		return
	}
	_, _ = io.WriteString(w, "ok")
}

// metrics are those of apiserver/pkg/storage/value: encrypt/envelope/metrics/metrics.go
// and metrics.go; that of apiserver/pkg/server/options/encryptionconfig/metrics; and an
// unrelated one. The server's address serves as its apiserver_id.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprint(w, "# TYPE other counter\nother{a=\"b\"} 1\n")
	family := func(name, kind string) { fmt.Fprintf(w, "# HELP %s what\n# TYPE %s %s\n", name, name, kind) }
	const told, config, uses = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds",
		"apiserver_encryption_config_controller_last_config_info", "apiserver_storage_transformation_operations_total"
	if len(s.told) > 0 {
		family(told, "gauge")
	}
	for _, k := range s.told {
		fmt.Fprintf(w, "%s{apiserver_id_hash=%q,key_id_hash=%q,provider_name=%q} %.6f\n", told, s.URL(), k.hash, k.provider, float64(k.at.UnixMicro())/1e6)
	}
	if s.config != "" {
		family(config, "gauge")
		fmt.Fprintf(w, "%s{apiserver_id_hash=%q,hash=%q} 1\n", config, s.URL(), s.config)
	}
	if len(s.uses) > 0 {
		family(uses, "counter")
	}
	for u, n := range s.uses {
		kind, prefix := "from_storage", ""
		if u.written {
			kind = "to_storage"
		}
		if u.provider != "" {
			prefix = "k8s:enc:kms:v2:" + u.provider + ":"
		}
		fmt.Fprintf(w, "%s{resource=\"secrets\",status=\"OK\",transformation_type=%q,transformer_prefix=%q} %d\n", uses, kind, prefix, n)
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

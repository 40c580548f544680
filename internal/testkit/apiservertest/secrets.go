// SPDX-License-Identifier: Apache-2.0

package apiservertest

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (one Secret) metadata() metav1.PartialObjectMetadata {
	return metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: Namespace, Name: one.Name, UID: "u", ResourceVersion: strconv.FormatInt(one.Revision, 10),
		},
	}
}

// list uses continue tokens as kube-apiserver does: each is the next key. An expired
// token is answered with a new one, which continues from the same key at a newer
// revision and never expires.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadataList") {
		refuse(w, metav1.Status{Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable, Message: "only metadata is served"})
		return
	}
	const inconsistent = "inconsistent:"
	position := r.URL.Query().Get("continue")
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	s.mu.Lock()
	defer s.mu.Unlock()
	next, renewed := strings.CutPrefix(position, inconsistent)
	if position != "" && !renewed && s.compacts {
		refuse(w, metav1.Status{Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: "the continue position has expired",
			ListMeta: metav1.ListMeta{Continue: inconsistent + position}})
		return
	}
	list := metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadataList"}}
	var remaining int64
	for _, one := range s.secrets {
		switch {
		case one.Name < next:
		case limit > 0 && len(list.Items) == limit:
			if list.Continue == "" {
				list.Continue = one.Name
			}
			remaining++
			list.RemainingItemCount = &remaining
		default:
			list.Items = append(list.Items, one.metadata())
		}
	}
	answer(w, list)
}

// patch accepts only an empty merge patch.
func (s *Server) patch(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	body, _ := io.ReadAll(r.Body)
	if string(body) != "{}" || r.Header.Get("Content-Type") != "application/merge-patch+json" ||
		!strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata") {
		refuse(w, metav1.Status{Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest, Message: "only empty merge patches are served, and metadata"})
		return
	}
	one, instead := s.update(r.Context(), name, r.URL.Query().Get("dryRun") == metav1.DryRunAll)
	if instead != nil {
		refuse(w, *instead)
		return
	}
	answer(w, one.metadata())
}

// update patches a Secret, or returns the refusal.
func (s *Server) update(ctx context.Context, name string, dryRun bool) (Secret, *metav1.Status) {
	s.mu.Lock()
	s.under++
	s.busiest = max(s.busiest, s.under)
	on := s.onPatch
	s.mu.Unlock()
	var instead *metav1.Status
	if on != nil {
		instead = on(ctx, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.under--
	if instead != nil {
		return Secret{}, instead
	}
	for i := range s.secrets {
		if one := &s.secrets[i]; one.Name == name {
			if !dryRun {
				s.rewrite(one)
			}
			return *one, nil
		}
	}
	return Secret{}, &metav1.Status{Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: "secrets " + strconv.Quote(name) + " not found"}
}

// rewrite rewrites a stale Secret. The caller holds s.mu.
func (s *Server) rewrite(one *Secret) {
	if len(s.providers) == 0 {
		return
	}
	s.uses[use{false, one.Provider}]++
	provider, hash := s.writer()
	if one.Provider == provider && one.KeyIDHash == hash {
		return
	}
	s.revision++
	one.Revision, one.Provider, one.KeyIDHash = s.revision, provider, hash
	one.Rewrites++
	s.uses[use{true, provider}]++
}

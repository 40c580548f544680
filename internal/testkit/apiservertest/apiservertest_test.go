// SPDX-License-Identifier: Apache-2.0

package apiservertest_test

import (
	"context"
	"net/http"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
	"github.com/trousseau-io/trousseau/internal/testkit/apiservertest"
)

// seen is what the product reads from the server.
func seen(t *testing.T, s *apiservertest.Server) (told string, written float64) {
	t.Helper()
	client, err := apiserver.New(&rest.Config{BearerToken: "t"}, s.URL())
	if err != nil {
		t.Fatal(err)
	}
	ids, err := client.KeyIDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ids.Told["trousseau"].Hash, ids.Uses[apiserver.Use{Resource: "secrets", Written: true, Prefix: "k8s:enc:kms:v2:trousseau:"}]
}

// patch patches a Secret with the product's client and returns the new
// resourceVersion.
func patch(t *testing.T, s *apiservertest.Server, token, name string) (string, error) {
	t.Helper()
	client, err := metadata.NewForConfig(&rest.Config{Host: s.URL(), BearerToken: token})
	if err != nil {
		t.Fatal(err)
	}
	secrets := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(apiservertest.Namespace)
	object, err := secrets.Patch(t.Context(), name, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
	if err != nil {
		return "", err
	}
	return object.ResourceVersion, nil
}

// TestWritesWhatIsStale checks that a patch rewrites only stale Secrets and that
// later requests see the change.
func TestWritesWhatIsStale(t *testing.T) {
	s := apiservertest.Start(t, apiservertest.Options{Token: "t"})
	if told, _ := seen(t, s); told != "" {
		t.Errorf("told %q before there is a plugin", told)
	}
	s.Learn("one")
	s.Store(2, "one")
	for _, step := range []struct {
		learn    string
		revision string
		rewrites int
	}{{"one", "1", 0}, {"two", "3", 1}, {"two", "3", 1}, {"one", "4", 2}} {
		s.Learn(step.learn)
		revision, err := patch(t, s, "t", "s00000")
		if err != nil || revision != step.revision {
			t.Errorf("after it was told %s: got revision %s, %v, want %s", step.learn, revision, err, step.revision)
		}
		want := apiservertest.Secret{Name: "s00000", Provider: "trousseau", KeyIDHash: step.learn, Revision: s.Secrets()[0].Revision, Rewrites: step.rewrites}
		if got := s.Secrets()[0]; got != want {
			t.Errorf("after it was told %s: got %+v, want %+v", step.learn, got, want)
		}
		if told, written := seen(t, s); told != step.learn || written != float64(step.rewrites) {
			t.Errorf("after it was told %s: the metrics say told %s, written %v times", step.learn, told, written)
		}
	}
	if got, want := s.Secrets()[1], (apiservertest.Secret{Name: "s00001", Provider: "trousseau", KeyIDHash: "one", Revision: 2}); got != want {
		t.Errorf("the other Secret: got %+v, want %+v", got, want)
	}
}

// TestRefuses checks that a refused request is counted but writes nothing.
func TestRefuses(t *testing.T) {
	s := apiservertest.Start(t, apiservertest.Options{Token: "t"})
	s.Store(1, "one")
	s.Learn("two")
	if _, err := patch(t, s, "another", "s00000"); !apierrors.IsUnauthorized(err) {
		t.Errorf("with another token: got %v", err)
	}
	s.OnPatch(func(_ context.Context, name string) *metav1.Status {
		return &metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: "no " + name}
	})
	if _, err := patch(t, s, "t", "s00000"); !apierrors.IsForbidden(err) || err.Error() != "no s00000" {
		t.Errorf("refused: got %v", err)
	}
	s.OnPatch(nil)
	if _, err := patch(t, s, "t", "s00009"); !apierrors.IsNotFound(err) {
		t.Errorf("missing Secret: got %v", err)
	}
	if got := s.Secrets()[0]; got.Rewrites != 0 || got.KeyIDHash != "one" {
		t.Errorf("got %+v, want no change", got)
	}
	if got := len(s.Requests()); got != 3 {
		t.Errorf("%d requests, want 3", got)
	}
}

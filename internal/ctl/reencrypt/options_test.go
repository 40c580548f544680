// SPDX-License-Identifier: Apache-2.0

package reencrypt_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/reencrypt"
	"github.com/trousseau-io/trousseau/internal/testkit/apiservertest"
)

// Hashes of key_ids.
const (
	older   = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	current = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	newer   = "sha256:3333333333333333333333333333333333333333333333333333333333333333"
)

// apiServer is the fake with helpers for these tests.
type apiServer struct{ *apiservertest.Server }

// newAPIServer has n Secrets, the first half under an older key_id.
func newAPIServer(t *testing.T, n int) apiServer {
	t.Helper()
	s := apiServer{apiservertest.Start(t, apiservertest.Options{})}
	s.Learn(older)
	s.Learn(current)
	s.Store(n/2, older)
	s.Store(n-n/2, current)
	return s
}

// answer answers patches with a status code, unless it is 0.
func (s apiServer) answer(on func(name string) (code int, reason metav1.StatusReason)) {
	s.OnPatch(func(_ context.Context, name string) *metav1.Status {
		code, reason := on(name)
		if code == 0 {
			return nil
		}
		return &metav1.Status{Code: int32(code), Reason: reason, Message: "refused by the test"}
	})
}

// patches returns the patch requests.
func (s apiServer) patches() []apiservertest.Request {
	return slices.DeleteFunc(s.Requests(), func(r apiservertest.Request) bool { return r.Method != http.MethodPatch })
}

func (s apiServer) patched() int { return len(s.patches()) }

// positions returns the continue tokens of list requests, from a request on.
func (s apiServer) positions(from int) (all []string) {
	for _, r := range s.Requests()[from:] {
		if r.URL.Path == "/api/v1/secrets" {
			all = append(all, r.URL.Query().Get("continue"))
		}
	}
	return all
}

// secretOf returns the name of the patched Secret.
func secretOf(r apiservertest.Request) string { return path.Base(r.URL.Path) }

// found returns the Secrets that are not under a key_id.
func (s apiServer) found(keyID string) []apiservertest.Secret {
	return slices.DeleteFunc(s.Secrets(), func(o apiservertest.Secret) bool { return o.KeyIDHash == keyID })
}

// stale counts the Secrets under another key_id.
func (s apiServer) stale() int { return len(s.found(current)) }

// plugin serves the ops endpoints of a plugin whose key_id has this hash.
func plugin(t *testing.T, hash string) fleet.Node {
	t.Helper()
	return pluginOf(t, func() string { return hash })
}

// pluginOf is plugin with a hash that changes.
func pluginOf(t *testing.T, hash func() string) fleet.Node {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, `{"ready":true,"checks":[]}`) })
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "# TYPE trousseau_generation gauge\ntrousseau_generation 1\n# TYPE trousseau_key_info gauge\ntrousseau_key_info{key_id_hash=%q,key=\"k\",version=\"2\"} 1\n", hash())
	})
	pages := httptest.NewServer(mux)
	t.Cleanup(pages.Close)
	n, err := fleet.ParseNode(pages.URL)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// options rewrites the server's Secrets at full speed.
func options(t *testing.T, s apiServer) reencrypt.Options {
	t.Helper()
	return reencrypt.Options{
		Config: &rest.Config{Host: s.URL()}, Plugins: fleet.Options{Nodes: []fleet.Node{plugin(t, current)}}, Resources: []string{"secrets"},
		Via: reencrypt.Walk, Rate: 1e6, Concurrency: 8, Patience: 10 * time.Second,
	}
}

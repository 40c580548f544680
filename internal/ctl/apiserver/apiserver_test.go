// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
)

// serve serves pages, and 404 for all other paths.
func serve(t *testing.T, pages map[string]func(http.ResponseWriter)) *apiserver.Server {
	t.Helper()
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page := pages[r.URL.Path]
		if page == nil {
			http.NotFound(w, r)
			return
		}
		page(w)
	}))
	t.Cleanup(h.Close)
	s, err := apiserver.New(&rest.Config{}, h.URL)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func status(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(code) }
}

func TestKMSProviders(t *testing.T) {
	const all, first, second = "/readyz/kms-providers", "/readyz/kms-provider-0", "/readyz/kms-provider-1"
	good := func(err error) bool { return err == nil }
	for _, c := range []struct {
		name  string
		pages map[string]func(http.ResponseWriter)
		want  func(error) bool
	}{
		{"one page, well", map[string]func(http.ResponseWriter){all: status(200)}, good},
		{"one page, ill", map[string]func(http.ResponseWriter){all: status(500)}, apierrors.IsInternalError},
		{"not allowed", map[string]func(http.ResponseWriter){all: status(403)}, apierrors.IsForbidden},
		{"a page for each, well", map[string]func(http.ResponseWriter){first: status(200), second: status(200)}, good},
		{"a page for each, the second ill", map[string]func(http.ResponseWriter){first: status(200), second: status(500)}, apierrors.IsInternalError},
		{"none", nil, apierrors.IsNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := serve(t, c.pages).KMSProviders(t.Context()); !c.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestKeyIDs(t *testing.T) {
	page := func(text string) map[string]func(http.ResponseWriter) {
		return map[string]func(http.ResponseWriter){"/metrics": func(w http.ResponseWriter) { _, _ = io.WriteString(w, text) }}
	}
	const name = "apiserver_envelope_encryption_key_id_hash_"
	ids, err := serve(t, page(`# HELP `+name+`status_last_timestamp_seconds when
# TYPE `+name+`status_last_timestamp_seconds gauge
`+name+`status_last_timestamp_seconds{apiserver_id_hash="sha256:me",key_id_hash="sha256:old",provider_name="a"} 100
`+name+`status_last_timestamp_seconds{apiserver_id_hash="sha256:me",key_id_hash="sha256:new",provider_name="a"} 200.5
`+name+`status_last_timestamp_seconds{apiserver_id_hash="sha256:me",key_id_hash="sha256:other",provider_name="b"} 150
# TYPE apiserver_encryption_config_controller_last_config_info gauge
apiserver_encryption_config_controller_last_config_info{apiserver_id_hash="sha256:me",hash="sha256:file"} 1
# TYPE apiserver_storage_transformation_operations_total counter
apiserver_storage_transformation_operations_total{resource="secrets",status="OK",transformation_type="from_storage",transformer_prefix="k8s:enc:kms:v2:b:"} 7
apiserver_storage_transformation_operations_total{resource="secrets",status="unknown-non-grpc",transformation_type="from_storage",transformer_prefix="k8s:enc:kms:v2:a:"} 1
apiserver_storage_transformation_operations_total{resource="secrets",status="OK",transformation_type="to_storage",transformer_prefix="k8s:enc:kms:v2:a:"} 3
# TYPE something_else counter
something_else{x="y"} 1
`)).KeyIDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]apiserver.Told{
		"a": {Hash: "sha256:new", At: time.UnixMilli(200500)},
		"b": {Hash: "sha256:other", At: time.UnixMilli(150000)},
	}
	if ids.Server != "sha256:me" || !reflect.DeepEqual(ids.Told, want) {
		t.Errorf("got %+v, want %+v of sha256:me", ids, want)
	}
	uses := map[apiserver.Use]float64{
		{Resource: "secrets", Prefix: "k8s:enc:kms:v2:b:"}:                7,
		{Resource: "secrets", Written: true, Prefix: "k8s:enc:kms:v2:a:"}: 3,
	}
	if ids.Configuration != "sha256:file" || !maps.Equal(ids.Uses, uses) {
		t.Errorf("configuration %s, uses %v, want %v", ids.Configuration, ids.Uses, uses)
	}
	older, err := serve(t, page(`# TYPE apiserver_storage_transformation_operations_total counter
apiserver_storage_transformation_operations_total{status="OK",transformation_type="to_storage",transformer_prefix=""} 3
`)).KeyIDs(t.Context())
	if err != nil || older.Uses != nil {
		t.Errorf("without resources: uses %v, %v, want nil", older.Uses, err)
	}
	if ids, err := serve(t, page("")).KeyIDs(t.Context()); err != nil || len(ids.Told) > 0 {
		t.Errorf("of an empty page: got %+v, %v", ids, err)
	}
	for _, text := range []string{"# TYPE x gauge\n" + name + "status_last_timestamp_seconds{ 1\n", "<html>\n<body>Welcome</body>\n"} {
		if _, err := serve(t, page(text)).KeyIDs(t.Context()); !errors.Is(err, apiserver.ErrNotMetrics) {
			t.Errorf("of %q: got %v, want %v", text, err, apiserver.ErrNotMetrics)
		}
	}
}

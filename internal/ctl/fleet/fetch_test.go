// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// TestFetch follows a real node through its states.
func TestFetch(t *testing.T) {
	vault := vaulttest.Start(t)
	key := vault.CreateKey("kek")
	vault.CreateKey("another")
	d := start(t, vault, "v1.2.3")

	began := time.Now()
	s := d.until("it answers", func(fleet.State) bool { return true })
	if s.Healthy || s.Generation != 0 || s.Key != (fleet.Key{}) || !s.Proven.IsZero() || s.Reload.InUse {
		t.Errorf("before the configuration: %+v", s)
	}
	if len(s.Reasons) != 1 || !strings.HasPrefix(s.Reasons[0], "kek: no configuration has been read yet") {
		t.Errorf("before the configuration: %q", s.Reasons)
	}
	if want := (fleet.Build{Version: "v1.2.3", Revision: "0123456789abcdef", Go: runtime.Version()}); s.Build != want {
		t.Errorf("build: got %+v, want %+v", s.Build, want)
	}

	token := vault.KMSToken("kek", "another")
	d.configure("kek", token)
	s = d.until("it is healthy", healthy)
	keyID, err := d.kek.Status()
	if err != nil {
		t.Fatal(err)
	}
	id, err := keyid.Parse(keyID)
	if err != nil {
		t.Fatal(err)
	}
	want := fleet.Key{Hash: keyid.Hash(keyID), Name: "kek", Version: 1, Created: time.Unix(id.Created, 0).UTC()}
	if s.Key != want {
		t.Errorf("key: got %+v, want %+v", s.Key, want)
	}
	if s.Generation != 1 || len(s.Reasons) != 0 || !s.Reload.InUse || s.Reload.Class != "" {
		t.Errorf("healthy: %+v", s)
	}
	for what, at := range map[string]time.Time{"adopted": s.Reload.Adopted, "proven": s.Proven} {
		if at.Before(began.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
			t.Errorf("%s at %s, the test began at %s", what, at, began)
		}
	}
	if s.Token.Expires.Before(time.Now()) || s.Token.KeptBy == "" {
		t.Errorf("token: %+v", s.Token)
	}
	if sum := sha256.Sum256([]byte(accessor(t, vault, token))); s.Token.AccessorHash != hex.EncodeToString(sum[:]) {
		t.Errorf("accessor hash is %s", s.Token.AccessorHash)
	}

	key.Rotate()
	s = d.until("the key has version 2", func(s fleet.State) bool { return s.Key.Version == 2 })
	if s.Generation != 2 || s.Key.Hash == want.Hash {
		t.Errorf("rotated: %+v", s)
	}

	d.configure("another", token)
	s = d.until("the reload has failed", func(s fleet.State) bool { return s.Reload.Class != "" })
	if s.Reload.InUse || s.Reload.Class != "refused_key" || !s.Healthy || s.Reload.String() != "failed: refused_key" {
		t.Errorf("a refused reload: %+v", s)
	}

	vault.Seal()
	s = d.until("it is degraded", func(s fleet.State) bool { return !s.Healthy })
	if len(s.Reasons) != 1 || !strings.HasPrefix(s.Reasons[0], "kek: ") || !strings.Contains(s.Reasons[0], "seal") {
		t.Errorf("sealed: %q", s.Reasons)
	}
}

// accessor returns a token's accessor.
func accessor(t *testing.T, vault *vaulttest.Server, token string) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, vault.URL()+"/v1/auth/token/lookup-self", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var said struct{ Data struct{ Accessor string } }
	if err := json.NewDecoder(resp.Body).Decode(&said); err != nil || said.Data.Accessor == "" {
		t.Fatalf("no accessor: %v", err)
	}
	return said.Data.Accessor
}

// TestFetchFails checks the errors, each of which says what to do.
func TestFetchFails(t *testing.T) {
	page := func(answer http.HandlerFunc) string {
		s := httptest.NewServer(answer)
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	const unused = "127.0.0.1:1" // privileged and unused; a port that was free may be reused by the next test
	hang := make(chan struct{})
	defer close(hang)
	for _, c := range []struct{ name, addr, want string }{
		{"refused", unused,
			"connection refused: check that trousseau is running there and that this is its --ops-addr, which is 127.0.0.1 only by default"},
		{"hangs", page(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}), "no answer in time: check that the node is up and that no firewall blocks the port"},
		{"no such page", page(http.NotFound),
			"/readyz: 404 Not Found: check that this is the --ops-addr of a trousseau of this version"},
		{"a redirect", page(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }),
			"/readyz: 302 Found: check that this is the --ops-addr of a trousseau of this version"},
		{"kube-apiserver's readyz", page(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }),
			"/readyz: not JSON: check that this is the --ops-addr of a trousseau of this version"},
		{"another program's metrics", page(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/readyz" {
				_, _ = w.Write([]byte(`{"ready":true}`))
			} else {
				_, _ = w.Write([]byte("up 1\n"))
			}
		}), "/metrics: no metric trousseau_generation: check that this is the --ops-addr of a trousseau of this version"},
		{"no metrics", page(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`{"ready":true}`)) }),
			"/metrics: not in Prometheus' text format: check that this is the --ops-addr of a trousseau of this version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			within := patience
			if c.name == "hangs" {
				within = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			if _, err := node(t, c.addr).Fetch(ctx); err == nil || err.Error() != c.want {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := node(t, unused).Fetch(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// TestFetchKeepsTheTerminalSafe sends control characters.
func TestFetchKeepsTheTerminalSafe(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"ready":false,"checks":[{"name":"kek","reason":"\u001b[2Jgone\nand more"}]}`))
			return
		}
		for _, sample := range []string{
			"trousseau_generation NaN",
			"trousseau_key_info{key_id_hash=\"sha256:\x1b[31m\",key=\"k\",version=\"x\"} 1",
			"trousseau_last_proof_timestamp_seconds +Inf",
		} {
			name, _, _ := strings.Cut(strings.ReplaceAll(sample, "{", " "), " ")
			fmt.Fprintf(w, "# TYPE %s gauge\n%s\n", name, sample)
		}
	}))
	defer s.Close()
	got, err := node(t, s.URL).Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Reasons) != 1 || got.Reasons[0] != "kek:  [2Jgone and more" || got.Key.Hash != "sha256: [31m" || !got.Proven.IsZero() {
		t.Errorf("got %+v", got)
	}
}

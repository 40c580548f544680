// SPDX-License-Identifier: Apache-2.0

package rotate_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/fleet"
	"github.com/trousseau-io/trousseau/internal/rotate"
	"github.com/trousseau-io/trousseau/internal/vaultadmin"
)

// world is a Vault with one KV secret, and one node that follows it. A token is
// its accessor after "hvs.".
type world struct {
	t       *testing.T
	options rotate.Options

	mu      sync.Mutex
	fields  map[string]any
	version int
	alive   map[string]string // policy by accessor
	calls   []string
	// stands is whether the node keeps the token that it has.
	stands bool
	serves string
	// fault answers a write of the secret instead; it returns false to let it be.
	fault func(w http.ResponseWriter) bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, version: 1, serves: "old",
		fields: map[string]any{"vaulttoken": "hvs.old", "transitkeyname": "kek", "n": 7},
		alive:  map[string]string{"old": "trousseau", "admin": "root"},
	}
	vault := httptest.NewServer(w)
	t.Cleanup(vault.Close)
	pages := httptest.NewServer(http.HandlerFunc(w.pages))
	t.Cleanup(pages.Close)
	config, err := vaultadmin.FromEnvironment(func(name string) string {
		return map[string]string{"VAULT_ADDR": vault.URL, "VAULT_TOKEN": "hvs.admin"}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	w.options = rotate.Options{
		KVMount: "secret", KVPath: "trousseau/config", Field: "vaulttoken",
		Token:   vaultadmin.TokenOptions{Policies: []string{"trousseau"}, Period: "768h", Orphan: true},
		Timeout: 10 * time.Second, Interval: 5 * time.Millisecond,
	}
	if w.options.Vault, err = vaultadmin.Dial(config); err != nil {
		t.Fatal(err)
	}
	if w.options.Nodes, err = fleet.ParseNodes([]string{pages.URL}); err != nil {
		t.Fatal(err)
	}
	return w
}

// pages are the node's.
func (w *world) pages(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.URL.Path == "/readyz" {
		fmt.Fprint(out, `{"ready":true}`)
		return
	}
	if token, _ := w.fields["vaulttoken"].(string); !w.stands {
		w.serves = strings.TrimPrefix(token, "hvs.")
	}
	fmt.Fprintf(out, "# TYPE trousseau_generation gauge\ntrousseau_generation 1\n"+
		"# TYPE trousseau_config_last_reload_successful gauge\ntrousseau_config_last_reload_successful 1\n"+
		"# TYPE trousseau_vault_token_info gauge\ntrousseau_vault_token_info{accessor_hash=%q} 1\n", rotate.Hash(w.serves))
}

func (w *world) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	if r.Method == http.MethodPost {
		w.calls = append(w.calls, path)
	}
	answer := func(v map[string]any) { _ = json.NewEncoder(out).Encode(v) }
	refuse := func(code int, why string) {
		out.WriteHeader(code)
		answer(map[string]any{"errors": []string{why}})
	}
	accessor, _ := body["accessor"].(string)
	switch {
	case path == "secret/data/trousseau/config" && r.Method == http.MethodGet:
		answer(map[string]any{"data": map[string]any{"data": w.fields, "metadata": map[string]any{"version": w.version}}})
	case path == "secret/data/trousseau/config":
		if w.fault != nil && w.fault(out) {
			return
		}
		if options, _ := body["options"].(map[string]any); fmt.Sprint(options["cas"]) != fmt.Sprint(w.version) {
			refuse(400, "check-and-set parameter did not match the current version")
			return
		}
		w.store(body)
		answer(map[string]any{"data": map[string]any{"version": w.version}})
	case path == "auth/token/lookup-self", path == "auth/token/lookup":
		if token, _ := body["token"].(string); token != "" {
			accessor = strings.TrimPrefix(token, "hvs.")
		} else {
			accessor = strings.TrimPrefix(r.Header.Get("X-Vault-Token"), "hvs.")
		}
		if w.alive[accessor] == "" {
			refuse(403, "bad token")
			return
		}
		answer(map[string]any{"data": map[string]any{"accessor": accessor}})
	case path == "auth/token/create-orphan":
		w.alive["new"] = "trousseau"
		answer(map[string]any{"data": nil, "auth": map[string]any{"client_token": "hvs.new", "accessor": "new"}})
	case path == "auth/token/lookup-accessor":
		if w.alive[accessor] == "" {
			refuse(403, "invalid accessor")
			return
		}
		answer(map[string]any{"data": map[string]any{"policies": []string{w.alive[accessor]}}})
	case path == "auth/token/revoke-accessor":
		delete(w.alive, accessor)
		out.WriteHeader(http.StatusNoContent)
	default:
		refuse(403, "permission denied")
	}
}

func (w *world) store(body map[string]any) {
	w.fields, _ = body["data"].(map[string]any)
	w.version++
}

// mustHave compares the tokens that are alive, but for the administrator's, and
// the one that is stored.
func (w *world) mustHave(stored string, alive ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var got []string
	for accessor := range w.alive {
		if accessor != "admin" {
			got = append(got, accessor)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, alive) || w.fields["vaulttoken"] != "hvs."+stored {
		w.t.Errorf("alive %v, stored %v, want %v and hvs.%s", got, w.fields["vaulttoken"], alive, stored)
	}
	if w.fields["transitkeyname"] != "kek" || fmt.Sprint(w.fields["n"]) != "7" {
		w.t.Errorf("the other fields are %v", w.fields)
	}
}

func TestRun(t *testing.T) {
	w := newWorld(t)
	var moved []string
	w.options.Moved = func(n rotate.Node) { moved = append(moved, n.Node) }
	r, err := rotate.Run(t.Context(), w.options)
	if err != nil || !r.Revoked || r.Stuck != "" || r.OldAccessor != "old" || r.NewAccessor != "new" || !r.Nodes[0].Moved {
		t.Errorf("got %+v %v", r, err)
	}
	if len(moved) != 1 || moved[0] != r.Nodes[0].Node {
		t.Errorf("told of %v", moved)
	}
	w.mustHave("new", "new")
	if text, err := json.Marshal(r); err != nil || strings.Contains(string(text), "hvs.") {
		t.Errorf("the report holds a token: %s %v", text, err)
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	w := newWorld(t)
	r, err := rotate.DryRun(t.Context(), w.options)
	if err != nil || !r.DryRun || r.OldAccessor != "old" || len(w.calls) != 0 {
		t.Errorf("got %+v %v after writes %v", r, err, w.calls)
	}
	w.mustHave("old", "old")
}

// TestNotAllMove: both tokens stay alive, and Resume goes on.
func TestNotAllMove(t *testing.T) {
	w := newWorld(t)
	w.stands = true
	w.options.Timeout = 100 * time.Millisecond
	r, err := rotate.Run(t.Context(), w.options)
	if err != nil || r.Revoked || r.Stuck != "not every node serves the new token after 100ms" || r.Nodes[0].Moved ||
		r.Nodes[0].Reason != "it serves another token: see whether its Vault Agent runs and renders" {
		t.Errorf("got %+v %v", r, err)
	}
	w.mustHave("new", "new", "old")

	w.stands = false
	w.options.Timeout = 10 * time.Second
	for accessor, want := range map[string]string{
		"new":   "which is in use: --resume takes the old one's",
		"admin": "accessor admin is that of a token with policy root, and none of Trousseau's",
		"none":  "vault knows no token of accessor none",
	} {
		if _, err := rotate.Resume(t.Context(), w.options, accessor); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("resume %s: got %v, want %q", accessor, err, want)
		}
	}
	w.mustHave("new", "new", "old")
	if r, err := rotate.Resume(t.Context(), w.options, "old"); err != nil || !r.Revoked {
		t.Errorf("got %+v %v", r, err)
	}
	w.mustHave("new", "new")
}

// TestStopped ends the wait; the old token stays alive.
func TestStopped(t *testing.T) {
	w := newWorld(t)
	w.stands = true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.fault = func(http.ResponseWriter) bool {
		time.AfterFunc(50*time.Millisecond, cancel)
		return false
	}
	r, err := rotate.Run(ctx, w.options)
	if err != nil || r.Revoked || r.Stuck != "it was stopped before every node served the new token" {
		t.Errorf("got %+v %v", r, err)
	}
	w.mustHave("new", "new", "old")
}

// TestNothingIsChanged where a node would not be seen to follow.
func TestNothingIsChanged(t *testing.T) {
	w := newWorld(t)
	w.stands, w.serves = true, "another"
	if _, err := rotate.Run(t.Context(), w.options); err == nil || !strings.Contains(err.Error(), "serves another token than the one in secret/trousseau/config") {
		t.Errorf("got %v", err)
	}
	nobody, err := fleet.ParseNodes([]string{"127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	w.options.Nodes = nobody
	if _, err := rotate.Run(t.Context(), w.options); err == nil || !strings.HasPrefix(err.Error(), "nothing is changed, because not every node would follow:\n  127.0.0.1:1: connection refused") {
		t.Errorf("got %v", err)
	}
	if len(w.calls) != 0 {
		t.Errorf("it wrote %v", w.calls)
	}
}

// TestADeadToken is replaced, and nothing is revoked.
func TestADeadToken(t *testing.T) {
	w := newWorld(t)
	delete(w.alive, "old")
	r, err := rotate.Run(t.Context(), w.options)
	if err != nil || r.OldAccessor != "" || r.Revoked || r.Stuck != "" {
		t.Errorf("got %+v %v", r, err)
	}
	w.mustHave("new", "new")
}

// TestTheSecretIsNotWritten: the new token does not stay behind.
func TestTheSecretIsNotWritten(t *testing.T) {
	for name, fault := range map[string]func(w *world) func(http.ResponseWriter) bool{
		"somebody was faster": func(w *world) func(http.ResponseWriter) bool {
			return func(http.ResponseWriter) bool { w.version++; return false }
		},
		"no answer": func(*world) func(http.ResponseWriter) bool {
			return func(http.ResponseWriter) bool { panic(http.ErrAbortHandler) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fault = fault(w)
			_, err := rotate.Run(t.Context(), w.options)
			if err == nil || !strings.HasSuffix(err.Error(), "(the new token is revoked, the old one still in use)") {
				t.Errorf("got %v", err)
			}
			w.mustHave("old", "old")
		})
	}
}

// TestTheAnswerIsLost: what was stored counts, not what was answered.
func TestTheAnswerIsLost(t *testing.T) {
	w := newWorld(t)
	w.fault = func(http.ResponseWriter) bool {
		fields := map[string]any{"vaulttoken": "hvs.new", "transitkeyname": "kek", "n": 7}
		w.store(map[string]any{"data": fields})
		panic(http.ErrAbortHandler)
	}
	r, err := rotate.Run(t.Context(), w.options)
	if err != nil || !r.Revoked {
		t.Errorf("got %+v %v", r, err)
	}
	w.mustHave("new", "new")
}

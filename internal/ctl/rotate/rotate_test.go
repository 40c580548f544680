// SPDX-License-Identifier: Apache-2.0

package rotate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/rotate"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// path is the path of the secret in vaulttest.
const path = "trousseau/config"

// world is a Vault with one KV secret, and one node that follows it.
type world struct {
	t       *testing.T
	vault   *vaulttest.Server
	old     vaulttest.Token // the initial token in the secret
	options rotate.Options
	admin   *vaultadmin.Client

	mu sync.Mutex
	// stands is whether the node keeps its current token.
	stands bool
	// serves is the accessor of the node's token.
	serves string
	// broken makes the node not serve.
	broken bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, vault: vaulttest.Start(t)}
	w.old = w.vault.CreateToken(vaulttest.TokenOptions{Policies: []string{"trousseau"}, Orphan: true})
	w.serves = w.old.Accessor
	w.vault.PutSecret(path, fields(w.old.ID))
	pages := httptest.NewServer(http.HandlerFunc(w.pages))
	t.Cleanup(pages.Close)
	w.admin = dial(t, w.vault)
	w.options = rotate.Options{
		Vault: w.admin, AllNodes: true,
		KVMount: "secret", KVPath: path, Field: "vaulttoken",
		Token:   vaultadmin.TokenOptions{Policies: []string{"trousseau"}, Period: "768h", Orphan: true},
		Timeout: 10 * time.Second, Interval: 5 * time.Millisecond,
	}
	var err error
	if w.options.Nodes, err = fleet.ParseNodes([]string{pages.URL}); err != nil {
		t.Fatal(err)
	}
	return w
}

func dial(t *testing.T, v *vaulttest.Server) *vaultadmin.Client {
	t.Helper()
	c, err := vaultadmin.Dial(vaultadmin.Config{Address: v.URL()}.WithToken(v.RootToken()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fields(token string) map[string]any {
	return map[string]any{"vaulttoken": token, "transitkeyname": "kek", "vaultaddress": "https://vault.example:8200", "n": 7}
}

// stored returns the secret.
func (w *world) stored() map[string]any {
	found, err := w.admin.Read(context.Background(), "secret/data/"+path)
	if err != nil {
		w.t.Error(err)
	}
	fields, _ := found["data"].(map[string]any)
	return fields
}

// stand makes the node keep its token, or follow the secret.
func (w *world) stand(still bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stands = still
}

// pages are the node's ops endpoints.
func (w *world) pages(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.URL.Path == "/readyz" {
		fmt.Fprintf(out, `{"ready":%t,"checks":[{"name":"key","ok":%t,"reason":"Vault is sealed"}]}`, !w.broken, !w.broken)
		return
	}
	if !w.stands {
		token := strings.TrimSpace(fmt.Sprint(w.stored()["vaulttoken"]))
		for _, t := range w.vault.Tokens() {
			if t.ID == token {
				w.serves = t.Accessor
			}
		}
	}
	fmt.Fprintf(out, "# TYPE trousseau_generation gauge\ntrousseau_generation 1\n"+
		"# TYPE trousseau_config_last_reload_successful gauge\ntrousseau_config_last_reload_successful 1\n"+
		"# TYPE trousseau_vault_token_info gauge\ntrousseau_vault_token_info{accessor_hash=%q} 1\n", rotate.Hash(w.serves))
}

// newest returns the token created last.
func (w *world) newest() vaulttest.Token {
	w.t.Helper()
	all := w.vault.Tokens()
	if len(all) == 0 {
		w.t.Fatal("no live token")
	}
	return all[len(all)-1]
}

// mustHave compares the live tokens, without the administrator's, and the stored
// token.
func (w *world) mustHave(stored vaulttest.Token, alive ...vaulttest.Token) {
	w.t.Helper()
	fields := w.stored()
	if got := w.vault.Tokens(); !slices.Equal(got, alive) || fields["vaulttoken"] != stored.ID {
		w.t.Errorf("alive %v, stored %v, want %v and %v", got, fields["vaulttoken"], alive, stored)
	}
	if fields["transitkeyname"] != "kek" || fmt.Sprint(fields["n"]) != "7" {
		w.t.Errorf("the other fields are %v", fields)
	}
}

// as continues with another administrator's token.
func (w *world) as(token vaulttest.Token) {
	w.t.Helper()
	var err error
	if w.options.Vault, err = vaultadmin.Dial(vaultadmin.Config{Address: w.vault.URL()}.WithToken(token.ID)); err != nil {
		w.t.Fatal(err)
	}
}

// mustNotHaveWritten fails if anything was written since the world was created.
func (w *world) mustNotHaveWritten() {
	w.t.Helper()
	for _, op := range []string{vaulttest.OpKVWrite, vaulttest.OpCreateToken, vaulttest.OpRevokeAccessor, vaulttest.OpOther} {
		if n := w.vault.Count(op); n != 0 {
			w.t.Errorf("%d requests of %s", n, op)
		}
	}
	w.mustHave(w.old, w.old)
}

// onStore injects a fault into the write of the secret.
func (w *world) onStore(f vaulttest.Fault) {
	f.Match, f.Times = vaulttest.Ops(vaulttest.OpKVWrite), 1
	w.vault.Inject(f)
}

func TestRun(t *testing.T) {
	w := newWorld(t)
	var moved []string
	w.options.Moved = func(n rotate.Node) { moved = append(moved, n.Node) }
	r, err := rotate.Run(t.Context(), w.options)
	if err != nil || !r.Revoked || r.Stuck != "" || r.OldAccessor != w.old.Accessor || r.NewAccessor != w.newest().Accessor || !r.Nodes[0].Moved {
		t.Errorf("got %+v %v", r, err)
	}
	if len(moved) != 1 || moved[0] != r.Nodes[0].Node {
		t.Errorf("told of %v", moved)
	}
	w.mustHave(w.newest(), w.newest())
	text, err := json.Marshal(r)
	if _, found := w.vault.Leak(string(text)); found || err != nil {
		t.Errorf("the report holds a token: %s %v", text, err)
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	w := newWorld(t)
	r, err := rotate.DryRun(t.Context(), w.options)
	if err != nil || !r.DryRun || r.OldAccessor != w.old.Accessor {
		t.Errorf("got %+v %v", r, err)
	}
	w.mustNotHaveWritten()
}

// TestNotAllMove checks that both tokens stay valid and Resume completes the
// rotation.
func TestNotAllMove(t *testing.T) {
	w := newWorld(t)
	w.stand(true)
	w.options.Timeout = 2 * time.Second
	r, err := rotate.Run(t.Context(), w.options)
	if err != nil || r.Revoked || r.Stuck != "not all nodes serve with the new token after 2s" || r.Nodes[0].Moved ||
		r.Nodes[0].Reason != "it uses another token: check that its Vault Agent runs and renders config.yaml" {
		t.Errorf("got %+v %v", r, err)
	}
	made := w.newest()
	w.mustHave(made, w.old, made)

	w.stand(false)
	w.options.Timeout = 10 * time.Second
	admin := w.vault.CreateToken(vaulttest.TokenOptions{Policies: []string{"root"}})
	self, err := w.options.Vault.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for accessor, want := range map[string]string{
		made.Accessor:  "which is in use: give --resume the accessor of the old token",
		self.Accessor:  "is your own, and revoking it would lock you out",
		admin.Accessor: "the token of accessor " + admin.Accessor + " has policy root, not only trousseau, so others may use it",
		"none":         "vault knows no token with accessor none",
	} {
		if _, err := rotate.Resume(t.Context(), w.options, accessor); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("resume %s: got %v, want %q", accessor, err, want)
		}
	}
	w.vault.Revoke(admin.ID)
	w.mustHave(made, w.old, made)
	if r, err := rotate.Resume(t.Context(), w.options, w.old.Accessor); err != nil || !r.Revoked {
		t.Errorf("got %+v %v", r, err)
	}
	w.mustHave(made, made)
}

// TestStopped ends the wait; the old token stays valid.
func TestStopped(t *testing.T) {
	w := newWorld(t)
	w.stand(true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_ = w.vault.WaitCount(ctx, vaulttest.OpKVWrite, 1)
		_ = w.vault.WaitIdle(ctx) // so it is stored
		cancel()
	}()
	r, err := rotate.Run(ctx, w.options)
	if err != nil || r.Revoked || r.Stuck != "interrupted before all nodes served with the new token" {
		t.Errorf("got %+v %v", r, err)
	}
	w.mustHave(w.newest(), w.old, w.newest())
}

// TestNothingIsChanged covers nodes whose token cannot be observed.
func TestNothingIsChanged(t *testing.T) {
	w := newWorld(t)
	w.mu.Lock()
	w.stands, w.serves = true, "another"
	w.mu.Unlock()
	if _, err := rotate.Run(t.Context(), w.options); err == nil || !strings.Contains(err.Error(), "uses another token than the one in secret/trousseau/config") {
		t.Errorf("got %v", err)
	}
	unused, err := fleet.ParseNodes([]string{"127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	w.options.Nodes = unused
	if _, err := rotate.Run(t.Context(), w.options); err == nil || !strings.HasPrefix(err.Error(), "nothing was changed, because some nodes would not get the new token:\n  127.0.0.1:1: connection refused") {
		t.Errorf("got %v", err)
	}
	w.mustNotHaveWritten()
}

// TestANodeIsLeftOut checks that nothing is changed unless the nodes are all.
func TestANodeIsLeftOut(t *testing.T) {
	w := newWorld(t)
	nodes := w.options.Nodes
	found := func(m fleet.Members) func(context.Context) (fleet.Members, error) {
		m.Nodes = nodes
		return func(context.Context) (fleet.Members, error) { return m, nil }
	}
	for _, c := range []struct {
		name string
		find func(context.Context) (fleet.Members, error)
		all  bool
		want string
	}{
		{"not compared", nil, false, "the nodes are not compared with the cluster's API servers"},
		{"no API servers", found(fleet.Members{}), false, "the nodes are not compared with the cluster's API servers"},
		{"one without a pod", found(fleet.Members{APIServers: []fleet.APIServer{{Address: "a", Node: "n"}, {Address: "b"}}}), true, "The API server at b has no pod"},
		{"one not named", found(fleet.Members{APIServers: make([]fleet.APIServer, 2), Typed: true}), true, "The cluster has 2 API servers, and only 1 node is named."},
		{"not found", func(context.Context) (fleet.Members, error) { return fleet.Members{}, errors.New("no pods") }, true, "No pods."},
	} {
		w.options.Find, w.options.AllNodes = c.find, c.all
		for name, run := range map[string]func() error{
			"run":     func() error { _, err := rotate.Run(t.Context(), w.options); return err },
			"dry run": func() error { _, err := rotate.DryRun(t.Context(), w.options); return err },
		} {
			if err := run(); err == nil || !strings.HasPrefix(err.Error(), "nothing was changed, because a node could lose its token: "+c.want) {
				t.Errorf("%s, %s: got %v, want %s", c.name, name, err, c.want)
			}
		}
	}
	w.mustNotHaveWritten()
	w.options.Find, w.options.AllNodes = found(fleet.Members{APIServers: make([]fleet.APIServer, 1), Typed: true}), false
	if r, err := rotate.Run(t.Context(), w.options); err != nil || !r.Revoked {
		t.Errorf("one node of one: got %+v, %v", r, err)
	}
}

// TestANodeJoins has a control plane that grows while the nodes get the new token: the old
// one is not revoked before the new node has it too.
func TestANodeJoins(t *testing.T) {
	w := newWorld(t)
	nodes, calls := w.options.Nodes, 0
	w.options.AllNodes, w.options.Timeout = false, time.Second
	w.options.Find = func(context.Context) (fleet.Members, error) {
		m := fleet.Members{Nodes: nodes, APIServers: []fleet.APIServer{{Address: "a", Node: "n"}}}
		if calls++; calls > 1 {
			m.APIServers = append(m.APIServers, fleet.APIServer{Address: "b"})
		}
		return m, nil
	}
	r, err := rotate.Run(t.Context(), w.options)
	if want := "not all nodes serve with the new token after 1s: The API server at b has no pod of trousseau on its node."; err != nil || r.Revoked || r.Stuck != want {
		t.Errorf("got %+v, %v, want %s", r, err, want)
	}
	w.mustHave(w.newest(), w.old, w.newest())
}

// TestADeadToken replaces an expired token and revokes nothing.
func TestADeadToken(t *testing.T) {
	w := newWorld(t)
	w.vault.Revoke(w.old.ID)
	r, err := rotate.Run(t.Context(), w.options)
	if err != nil || r.OldAccessor != "" || r.Revoked || r.Stuck != "" || r.NoOld != "the old token was revoked or expired" {
		t.Errorf("got %+v %v", r, err)
	}
	w.mustHave(w.newest(), w.newest())
}

// TestANodeDoesNotServe checks that this is a finding, and that the old token stays
// valid for a node that has the new one and still does not serve.
func TestANodeDoesNotServe(t *testing.T) {
	w := newWorld(t)
	w.mu.Lock()
	w.broken = true
	w.mu.Unlock()
	node := w.options.Nodes[0].String()
	r, err := rotate.DryRun(t.Context(), w.options)
	want := []finding.Finding{{ID: "node-does-not-serve", Severity: finding.Error, Subject: node, Text: "it does not serve: key: Vault is sealed"}}
	if err != nil || !reflect.DeepEqual(r.Findings, want) {
		t.Errorf("got %+v %v\nwant %+v", r.Findings, err, want)
	}
	w.mustNotHaveWritten()

	w.options.Timeout = 2 * time.Second
	r, err = rotate.Run(t.Context(), w.options)
	want = []finding.Finding{
		{ID: "rotation-incomplete", Severity: finding.Error, Subject: "secret/" + path, Text: "not all nodes serve with the new token after 2s",
			Do: "the old token is still valid; fix this, then run rotate-token with --resume " + w.old.Accessor},
		{ID: "node-does-not-serve", Severity: finding.Error, Subject: node, Text: "it uses the new token, but does not serve: key: Vault is sealed"},
	}
	if err != nil || !reflect.DeepEqual(r.Findings, want) || !r.Nodes[0].Moved {
		t.Errorf("got %+v %v\nwant %+v", r.Findings, err, want)
	}
	w.mustHave(w.newest(), w.old, w.newest())
}

// TestRefusals checks that a token which is not only Trousseau's is not replaced, and
// that no error shows a value of the secret.
func TestRefusals(t *testing.T) {
	const secret = "secret/" + path
	type token = vaulttest.TokenOptions
	for _, c := range []struct {
		name   string
		token  token // in the secret
		change func(*world)
		want   string // "" if it is replaced
	}{
		{name: "the administrator's", token: token{Policies: []string{"root"}},
			want: "the token in " + secret + " has policy root, not only trousseau, so others may use it: if that is Trousseau's policy, name it with --policy; to revoke the token anyway, give --any-policies"},
		{name: "more policies", token: token{Policies: []string{"trousseau", "app", "ci"}},
			want: "the token in " + secret + " has policy app, ci, not only trousseau"},
		{name: "more policies, but told so", token: token{Policies: []string{"trousseau", "app"}},
			change: func(w *world) { w.options.AnyPolicies = true }},
		{name: "another cluster's", token: token{Policies: []string{"trousseau-a"}},
			want: "the token in " + secret + " has policy trousseau-a, not only trousseau"},
		{name: "no policy", token: token{},
			want: "the token in " + secret + " does not have policy trousseau, so it is not Trousseau's"},
		{name: "your own", token: token{Policies: []string{"trousseau", "limited"}},
			change: func(w *world) { w.as(w.old) },
			want:   "the token in " + secret + " is your own, and revoking it would lock you out: log in to Vault with another one"},
		{name: "your own, which may not look itself up", token: token{Policies: []string{"blind"}, NoDefaultPolicy: true},
			change: func(w *world) {
				w.as(w.old)
				w.options.AnyPolicies = true
			},
			want: "the token in " + secret + " is your own"},
		{name: "a child of a child", token: token{Policies: []string{"trousseau"}},
			change: func(w *world) {
				w.as(w.vault.CreateToken(token{Policies: []string{"root"}}))
				w.options.Token.Orphan = false
			},
			want: "--orphan=false: the new token would end with your own one, which has a parent, maybe the token to revoke"},
		{name: "a child of an orphan", token: token{Policies: []string{"trousseau"}},
			change: func(w *world) { w.options.Token.Orphan = false }},
		{name: "may not be looked up", token: token{Policies: []string{"trousseau", "silent"}, NoDefaultPolicy: true},
			change: func(w *world) { w.as(w.vault.CreateToken(token{Policies: []string{"limited"}, Orphan: true})) },
			want:   "neither the token in " + secret + " nor you may look it up, so it may be valid, and could not be revoked: use a token that may update auth/token/lookup"},
		{name: "no such field", token: token{Policies: []string{"trousseau"}},
			change: func(w *world) { w.options.Field = "vaultoken" },
			want:   secret + " has no token in field vaultoken: check --field; its fields are n, transitkeyname, vaultaddress, vaulttoken"},
		{name: "another field", token: token{Policies: []string{"trousseau"}},
			change: func(w *world) { w.options.Field = "transitkeyname" },
			want:   secret + " has no token in field transitkeyname: check --field"},
		{name: "an address", token: token{Policies: []string{"trousseau"}},
			change: func(w *world) { w.options.Field = "vaultaddress" },
			want:   secret + " has no token in field vaultaddress: check --field"},
		{name: "a number", token: token{Policies: []string{"trousseau"}},
			change: func(w *world) { w.options.Field = "n" },
			want:   secret + " has no token in field n: check --field"},
		{name: "no such secret", token: token{Policies: []string{"trousseau"}},
			change: func(w *world) { w.options.KVPath = "trousseau/other" },
			want:   "there is no secret secret/trousseau/other in a KV engine of version 2: create it with `trousseauctl setup`, or check --cluster, --kv-mount and --kv-path"},
		{name: "KV version 1", token: token{Policies: []string{"trousseau"}},
			change: func(w *world) {
				if _, err := w.options.Vault.Write(t.Context(), "sys/mounts/kv1", map[string]any{"type": "kv"}); err != nil {
					t.Fatal(err)
				}
				w.vault.ResetCounts()
				w.options.KVMount = "kv1"
			},
			want: "the KV engine at kv1/ is KV version 1, not 2: name another one with --kv-mount, or see `vault kv enable-versioning -h`"},
		{name: "a newline after the value", token: token{Policies: []string{"trousseau"}},
			change: func(w *world) { w.vault.PutSecret(path, fields(w.old.ID+"\n")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.vault.SetPolicy("silent", nil)
			w.vault.SetPolicy("blind", vaulttest.Rules{"secret/data/*": {"read", "update"}, "auth/token/lookup": {"update"}})
			w.vault.SetPolicy("limited", vaulttest.Rules{"secret/data/*": {"read", "update"}})
			w.vault.Revoke(w.old.ID)
			c.token.Orphan = true
			w.old = w.vault.CreateToken(c.token)
			w.serves = w.old.Accessor
			w.vault.PutSecret(path, fields(w.old.ID))
			w.vault.ResetCounts()
			if c.change != nil {
				c.change(w)
			}
			_, dry := rotate.DryRun(t.Context(), w.options)
			r, err := rotate.Run(t.Context(), w.options)
			if c.want == "" {
				if dry != nil || err != nil || !r.Revoked || w.vault.TokenAlive(w.old.ID) {
					t.Errorf("got %v, %+v %v", dry, r, err)
				}
				return
			}
			for _, err := range []error{dry, err} {
				if err == nil || !strings.HasPrefix(err.Error(), c.want) {
					t.Errorf("got %v\nwant %s", err, c.want)
				} else if _, leaked := w.vault.Leak(err.Error()); leaked {
					t.Errorf("the error holds a token: %v", err)
				}
			}
			if !w.vault.TokenAlive(w.old.ID) || w.vault.Count(vaulttest.OpKVWrite)+w.vault.Count(vaulttest.OpCreateToken) != 0 {
				t.Error("something was changed")
			}
		})
	}
}

// TestABatchToken has nothing that could be revoked.
func TestABatchToken(t *testing.T) {
	w := newWorld(t)
	batch := w.vault.CreateToken(vaulttest.TokenOptions{Policies: []string{"trousseau"}, Type: vaulttest.Batch})
	w.vault.PutSecret(path, fields(batch.ID))
	r, err := rotate.Run(t.Context(), w.options)
	if err != nil || r.Revoked || r.OldAccessor != "" || r.NoOld != "the old token is a batch token, which ends by itself" {
		t.Errorf("got %+v %v", r, err)
	}
}

// TestResumeWithAChild checks that the parent of the token in the secret is not
// revoked.
func TestResumeWithAChild(t *testing.T) {
	w := newWorld(t)
	parent := w.vault.CreateToken(vaulttest.TokenOptions{Policies: []string{"root"}, Orphan: true})
	w.as(parent)
	child, err := w.options.Vault.CreateToken(t.Context(), vaultadmin.TokenOptions{Policies: []string{"trousseau"}})
	if err != nil {
		t.Fatal(err)
	}
	w.vault.PutSecret(path, fields(child.ID()))
	w.options.Vault, w.options.AnyPolicies = dial(t, w.vault), true
	if _, err := rotate.Resume(t.Context(), w.options, parent.Accessor); err == nil || !strings.Contains(err.Error(), "is not an orphan, and the old token may be its parent") {
		t.Errorf("got %v", err)
	}
	if !w.vault.TokenAlive(child.ID()) {
		t.Error("the token in the secret was revoked")
	}
}

// TestTheSecretIsNotWritten checks that the new token is revoked.
func TestTheSecretIsNotWritten(t *testing.T) {
	for name, fault := range map[string]func(*world) vaulttest.Fault{
		"another client was faster": func(w *world) vaulttest.Fault {
			return vaulttest.Fault{Handle: func(string, http.ResponseWriter, *http.Request) bool {
				w.vault.PutSecret(path, fields(w.old.ID))
				return false
			}}
		},
		"no answer": func(*world) vaulttest.Fault { return vaulttest.Fault{Cut: vaulttest.CutReset} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.onStore(fault(w))
			_, err := rotate.Run(t.Context(), w.options)
			if err == nil || !strings.HasSuffix(err.Error(), "(the new token was revoked, the old one is still in use)") {
				t.Errorf("got %v", err)
			}
			w.mustHave(w.old, w.old)
		})
	}
}

// TestStoredLate checks that a write which Vault completes after the timeout does
// not leave a revoked token in the secret.
func TestStoredLate(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	slow := make(chan struct{})
	w.onStore(vaulttest.Fault{Handle: func(string, http.ResponseWriter, *http.Request) bool {
		cancel()
		<-slow
		return false
	}})
	_, err := rotate.Run(ctx, w.options)
	if err == nil || !strings.HasSuffix(err.Error(), "(the new token was revoked, the old one is still in use)") {
		t.Errorf("got %v", err)
	}
	close(slow)
	if err := w.vault.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.mustHave(w.old, w.old)
}

// TestNothingIsKnown checks that a token which may have been stored is not revoked.
func TestNothingIsKnown(t *testing.T) {
	w := newWorld(t)
	w.vault.Inject(vaulttest.Fault{Cut: vaulttest.CutReset, Match: vaulttest.Ops(vaulttest.OpKVWrite)})
	_, err := rotate.Run(t.Context(), w.options)
	made := w.newest()
	if want := "the secret may or may not have been written: the new token has accessor " + made.Accessor; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	w.mustHave(w.old, w.old, made)
}

// TestTheAnswerIsLost checks that the stored secret counts, not the lost answer.
func TestTheAnswerIsLost(t *testing.T) {
	w := newWorld(t)
	w.onStore(vaulttest.Fault{Cut: vaulttest.CutBody})
	r, err := rotate.Run(t.Context(), w.options)
	if err != nil || !r.Revoked {
		t.Errorf("got %+v %v", r, err)
	}
	w.mustHave(w.newest(), w.newest())
}

// SPDX-License-Identifier: Apache-2.0

package rotatekey_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/rotatekey"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// world is a Vault with a key, and a node that uses a version of it.
type world struct {
	t     *testing.T
	vault *vaulttest.Server
	admin *vaultadmin.Client
	// version is that of the node. Blind says that it may not read the key.
	version int
	blind   bool
	// steps are the steps that were made.
	steps []string
	rotatekey.Options
}

const name = "kek"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, vault: vaulttest.Start(t), version: 1}
	w.vault.CreateKey(name)
	var err error
	if w.admin, err = vaultadmin.Dial(vaultadmin.Config{Address: w.vault.URL()}.WithToken(w.vault.RootToken())); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, `{"ready":true,"checks":[]}`) })
	mux.HandleFunc("/metrics", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "# TYPE trousseau_generation gauge\ntrousseau_generation 1\n# TYPE trousseau_key_info gauge\ntrousseau_key_info{key_id_hash=%q,key=\"k\",version=\"1\"} 1\n", w.hash(w.version))
	})
	pages := httptest.NewServer(mux)
	t.Cleanup(pages.Close)
	w.Options = rotatekey.Options{
		Vault: w.admin, Mount: "transit", Key: name,
		Await: func(_ context.Context, hash string) error {
			w.steps = append(w.steps, "await")
			if w.version = w.latest(); hash != w.hash(w.version) {
				t.Errorf("waits for %s, want the key_id of version %d", hash, w.version)
			}
			return nil
		},
		Reencrypt: func(context.Context, string) ([]finding.Finding, error) {
			w.steps = append(w.steps, "reencrypt")
			return nil, nil
		},
		Audit: func(context.Context) (audit.Report, []finding.Finding, error) {
			w.steps = append(w.steps, "audit")
			return w.audited(2, ""), nil, nil
		},
	}
	if w.Plugins.Nodes, err = fleet.ParseNodes([]string{pages.URL}); err != nil {
		t.Fatal(err)
	}
	return w
}

// audited is an audit that allows a min_decryption_version.
func (w *world) audited(may int, unknown string) audit.Report {
	return audit.Report{TransitKeys: []audit.TransitKey{
		{Engine: "other", Key: name, MayBecome: 9},
		{Engine: "transit", Key: name, MayBecome: may, Unknown: unknown},
	}}
}

func (w *world) read() map[string]any {
	data, err := w.admin.Read(context.Background(), "transit/keys/"+name)
	if err != nil {
		w.t.Error(err)
	}
	return data
}

// number reads a number about the key in Vault.
func (w *world) number(field string) int { return int(w.parse(w.read()[field])) }

func (w *world) parse(v any) int64 {
	n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64)
	if err != nil {
		w.t.Error(err)
	}
	return n
}

func (w *world) latest() int { return w.number("latest_version") }

func (w *world) hash(version int) string {
	id := keyid.ID{Engine: "transit", Key: name, Version: version}
	if created := w.read()["keys"].(map[string]any)[fmt.Sprint(version)]; !w.blind {
		id.Created = w.parse(created)
	}
	return keyid.Hash(id.String())
}

func (w *world) run(want string) rotatekey.Report {
	w.t.Helper()
	w.steps = nil
	r, err := rotatekey.Run(w.t.Context(), w.Options)
	if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
		w.t.Errorf("got error %v, want %q", err, want)
	}
	return r
}

func results(r rotatekey.Report) (all []string) {
	for _, s := range r.Steps {
		all = append(all, string(s.Result))
	}
	return all
}

func (w *world) want(r rotatekey.Report, latest, least int, steps string, want ...string) {
	w.t.Helper()
	if got := results(r); !slices.Equal(got, want) || fmt.Sprint(w.steps) != steps {
		w.t.Errorf("results %v of steps %v, want %v of %s", got, w.steps, want, steps)
	}
	if w.latest() != latest || w.number("min_decryption_version") != least {
		w.t.Errorf("latest version %d and minimum %d, want %d and %d", w.latest(), w.number("min_decryption_version"), latest, least)
	}
}

func TestRotates(t *testing.T) {
	for _, blind := range []bool{false, true} {
		w := newWorld(t)
		w.blind, w.Raise = blind, true
		r := w.run("")
		w.want(r, 2, 2, "[await await reencrypt audit]", "done", "done", "done", "done", "done")
		if r.Version != 2 || r.KeyIDHash != w.hash(2) || r.MinDecryptionVersion != 2 || r.Steps[4].Command != "vault write transit/keys/kek/config min_decryption_version=2" {
			t.Errorf("got %+v", r)
		}
	}
}

func TestRaisesOnlyOnDemand(t *testing.T) {
	w := newWorld(t)
	w.want(w.run(""), 2, 1, "[await await reencrypt audit]", "done", "done", "done", "done", "skipped")
}

// What the audit does not allow is not done.
func TestRaisesNoHigher(t *testing.T) {
	for _, c := range []struct {
		report audit.Report
		why    string
	}{
		{audit.Report{}, "no object in etcd is under this key"},
		{audit.Report{TransitKeys: []audit.TransitKey{{Engine: "other", Key: name, MayBecome: 2}}}, "no object in etcd is under this key"},
		{audit.Report{TransitKeys: []audit.TransitKey{{Engine: "transit", Key: name, MayBecome: 2, Unknown: "of a test"}}}, "of a test"},
		{audit.Report{TransitKeys: []audit.TransitKey{{Engine: "transit", Key: name, MayBecome: 1}}}, ""},
	} {
		w := newWorld(t)
		w.Raise = true
		w.Audit = func(context.Context) (audit.Report, []finding.Finding, error) { return c.report, nil, nil }
		r := w.run("")
		w.want(r, 2, 1, "[await await reencrypt]", "done", "done", "done", "done", "skipped")
		if c.why == "" {
			if len(r.Findings) > 0 {
				t.Errorf("findings %+v", r.Findings)
			}
		} else if len(r.Findings) != 1 || r.Findings[0].ID != rotatekey.NotRaised || !strings.Contains(r.Findings[0].Text, c.why) {
			t.Errorf("findings %+v, want %q", r.Findings, c.why)
		}
	}
}

// An end at any step is resumed by what is left, without another rotation.
func TestResumes(t *testing.T) {
	for _, at := range []string{"wait", "reencrypt", "audit"} {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t)
			w.Raise = true
			whole := w.Options
			broken := errors.New("broken by the test")
			switch at {
			case "wait":
				w.Await = func(context.Context, string) error {
					if w.latest() == 1 {
						return nil // before the rotation
					}
					return broken
				}
			case "reencrypt":
				w.Reencrypt = func(context.Context, string) ([]finding.Finding, error) { return nil, broken }
			case "audit":
				w.Audit = func(context.Context) (audit.Report, []finding.Finding, error) { return audit.Report{}, nil, broken }
			}
			r := w.run("step " + at + ": broken by the test: run this again with --resume")
			if got := results(r); got[0] != "done" || !slices.Contains(got, "failed") || got[4] != "planned" || r.Version != 2 {
				t.Errorf("got %v of version %d", got, r.Version)
			}
			w.Options = whole
			if at == "wait" {
				w.run("the nodes have version 1 of the key, and Vault has 2: an earlier rotation is not complete; run this with --resume")
			}
			w.Resume = true
			w.want(w.run(""), 2, 2, "[await reencrypt audit]", "skipped", "done", "done", "done", "done")
			w.want(w.run(""), 2, 2, "[await reencrypt audit]", "skipped", "done", "done", "done", "skipped")
		})
	}
}

// Nothing is changed if the rotation could not be completed.
func TestRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(w *world)
		want    string
	}{
		"another key":   {func(w *world) { w.vault.CreateKey("b"); w.Key = "b" }, "the nodes do not use the key transit/b of this Vault"},
		"another mount": {func(w *world) { w.Namespace = "team" }, "the nodes do not use the key team/transit/kek of this Vault"},
		"no such key":   {func(w *world) { w.Key = "none" }, "there is no key transit/keys/none at http"},
		"no node": {func(w *world) {
			gone, err := fleet.ParseNodes([]string{"127.0.0.1:1"})
			if err != nil {
				w.t.Fatal(err)
			}
			w.Plugins.Nodes = gone
		}, "no node says which key it uses"},
		"an API server": {func(w *world) {
			w.Await = func(context.Context, string) error { return errors.New("is down") }
		}, "nothing was changed, because the rotation could not be completed: is down"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.arrange(w)
			w.want(w.run(c.want), 1, 1, "[]", "planned", "planned", "planned", "planned", "planned")
		})
	}
}

func TestDryRun(t *testing.T) {
	w := newWorld(t)
	w.DryRun = true
	w.want(w.run(""), 1, 1, "[await]", "planned", "planned", "planned", "planned", "planned")
}

// Findings of the steps are those of the run, and do not end it.
func TestFindings(t *testing.T) {
	w := newWorld(t)
	w.Reencrypt = func(context.Context, string) ([]finding.Finding, error) {
		return []finding.Finding{{ID: "refused", Severity: finding.Error}}, nil
	}
	r := w.run("")
	w.want(r, 2, 1, "[await await audit]", "done", "done", "done", "done", "skipped")
	if len(r.Findings) != 1 || r.Findings[0].ID != "refused" || r.Steps[2].Text != "not everything: see the findings" {
		t.Errorf("got %+v", r)
	}
}

// SPDX-License-Identifier: Apache-2.0

package reencrypt_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/reencrypt"
	"github.com/trousseau-io/trousseau/internal/testkit/apiservertest"
)

// run fails the test on an error, and returns the report on Secrets.
func run(t *testing.T, o reencrypt.Options) (reencrypt.Report, reencrypt.Resource) {
	t.Helper()
	r, err := reencrypt.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Resources) != 1 || r.KeyIDHash != current {
		t.Fatalf("got %+v, want one resource under %s", r, current)
	}
	return r, r.Resources[0]
}

func refused(t *testing.T, o reencrypt.Options, want string) {
	t.Helper()
	_, err := reencrypt.Run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want %q", err, want)
	}
}

func TestRewritesWhatIsStale(t *testing.T) {
	for _, n := range []int{0, 1, 199, 200, 201, 1001} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := newAPIServer(t, n)
			o := options(t, s)
			var done, total int64
			o.Progress = func(_ string, d, all int64) { done, total = d, all }
			_, got := run(t, o)
			if got.Objects != n || got.Rewritten != n/2 || got.Current != n-n/2 || got.Gone != 0 || len(got.Failures) != 0 {
				t.Errorf("got %+v, want %d objects, %d rewritten", got, n, n/2)
			}
			if stale := s.stale(); stale != 0 || s.patched() != n {
				t.Errorf("%d are stale after %d patches, want none after %d", stale, s.patched(), n)
			}
			if done != int64(n) || total != int64(n) {
				t.Errorf("progress ended at %d of %d, want %d", done, total, n)
			}
		})
	}
}

// A compaction of etcd makes a continue token expire.
func TestCompactedMeanwhile(t *testing.T) {
	s := newAPIServer(t, 1000)
	s.Compact()
	if _, got := run(t, options(t, s)); got.Objects != 1000 || s.stale() != 0 {
		t.Errorf("got %+v with %d stale, want 1000 and none", got, s.stale())
	}
	want := []string{"", "s00200", "inconsistent:s00200", "s00400", "inconsistent:s00400"}
	if got := s.positions(0)[:5]; !slices.Equal(got, want) {
		t.Errorf("positions %v, want %v", got, want)
	}
}

func TestDeletedMeanwhile(t *testing.T) {
	s := newAPIServer(t, 10)
	s.answer(func(name string) (int, metav1.StatusReason) {
		if name == "s00003" {
			return http.StatusNotFound, metav1.StatusReasonNotFound
		}
		return 0, ""
	})
	if r, got := run(t, options(t, s)); got.Gone != 1 || got.Objects != 10 || len(r.Findings) != 0 {
		t.Errorf("got %+v, want one gone", got)
	}
}

// Each of these errors is transient.
func TestTriesAgain(t *testing.T) {
	for _, answer := range []struct {
		code   int
		reason metav1.StatusReason
	}{
		{http.StatusConflict, metav1.StatusReasonConflict},
		{http.StatusInternalServerError, metav1.StatusReasonInternalError},
		{http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable},
		{http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests},
		{http.StatusGatewayTimeout, metav1.StatusReasonTimeout},
	} {
		t.Run(string(answer.reason), func(t *testing.T) {
			s := newAPIServer(t, 20)
			s.answer(failing(2, answer.code, answer.reason))
			if _, got := run(t, options(t, s)); got.Rewritten != 10 || got.Current != 10 || s.stale() != 0 || s.patched() != 60 {
				t.Errorf("got %+v after %d patches, want all rewritten after 60", got, s.patched())
			}
		})
	}
}

// failing answers n times with an error for each object.
func failing(times, code int, reason metav1.StatusReason) func(string) (int, metav1.StatusReason) {
	var mu sync.Mutex
	seen := make(map[string]int)
	return func(name string) (int, metav1.StatusReason) {
		mu.Lock()
		defer mu.Unlock()
		if seen[name]++; seen[name] <= times {
			return code, reason
		}
		return 0, ""
	}
}

// Objects that cannot be rewritten are listed, and the next run tries only them
// again.
func TestFailures(t *testing.T) {
	s := newAPIServer(t, 300)
	s.answer(func(name string) (int, metav1.StatusReason) {
		if name == "s00003" || name == "s00299" {
			return http.StatusForbidden, metav1.StatusReasonForbidden
		}
		return 0, ""
	})
	o := options(t, s)
	o.State = filepath.Join(t.TempDir(), "state.json")
	r, got := run(t, o)
	if len(got.Failures) != 2 || got.Objects != 300 || got.Failures[0].Name != "s00003" || !strings.Contains(got.Failures[0].Reason, "refused by the test") {
		t.Fatalf("got %+v, want two failures with their reason", got)
	}
	s.OnPatch(nil)
	before := s.patched()
	r, got = run(t, o)
	if !r.Resumed || len(r.Findings) != 0 || got.Objects != 300 || got.Rewritten+got.Current != 300 || s.patched() != before+2 || s.stale() != 0 {
		t.Errorf("got %+v with %d patches more, want the two tried again", got, s.patched()-before)
	}
	if _, err := os.Stat(o.State); !os.IsNotExist(err) {
		t.Errorf("the state is still there: %v", err)
	}
}

// found returns the only finding of a run.
func found(t *testing.T, r reencrypt.Report) finding.Finding {
	t.Helper()
	if len(r.Findings) != 1 {
		t.Fatalf("findings %+v, want one", r.Findings)
	}
	return r.Findings[0]
}

// If everything fails, one reason is reported and the resource ends. What was done is
// counted.
func TestEverythingFails(t *testing.T) {
	s := newAPIServer(t, 1000)
	s.answer(func(string) (int, metav1.StatusReason) { return http.StatusForbidden, metav1.StatusReasonForbidden })
	o := options(t, s)
	o.MaxRefusals, o.Resources = 100, []string{"secrets", "deployments.apps"}
	r, err := reencrypt.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 2 || r.Findings[0].ID != reencrypt.Stopped || r.Findings[1].ID != reencrypt.Refused || r.Findings[1].Objects != 100 ||
		!strings.Contains(r.Findings[0].Text, "100 objects were refused in a row, the last of them default/s00") ||
		!strings.Contains(r.Findings[0].Text, "refused by the test") {
		t.Errorf("got findings %+v", r.Findings)
	}
	if got := r.Resources; len(got) != 2 || got[0].Objects != 100 || len(got[0].Failures) != 100 || s.patched() > 110 {
		t.Errorf("%d patches and %+v, want it to end after 100, and the next resource to be listed", s.patched(), r.Resources)
	}
}

// Many failures among successes do not end the run: every page is reached.
func TestManyFail(t *testing.T) {
	s := newAPIServer(t, 423)
	s.answer(func(name string) (int, metav1.StatusReason) {
		if name < "s00275" && name[5]%3 == 0 { // 110 of them
			return http.StatusForbidden, metav1.StatusReasonForbidden
		}
		return 0, ""
	})
	o := options(t, s)
	o.MaxRefusals = 50
	r, got := run(t, o)
	if f := found(t, r); f.ID != reencrypt.Refused || f.Objects != len(got.Failures) || len(f.Examples) != 10 || f.Examples[0] != "default/"+got.Failures[0].Name {
		t.Errorf("got %+v", f)
	}
	if got.Objects != 423 || len(got.Failures) != 110 || s.patched() != 423 {
		t.Errorf("%d of %d failed, after %d patches; want all 423 reached", len(got.Failures), got.Objects, s.patched())
	}
}

// The reasons are the API server's words, but no values of the object.
func TestReasons(t *testing.T) {
	s := newAPIServer(t, 3)
	s.OnPatch(func(_ context.Context, name string) *metav1.Status {
		refusal := &metav1.Status{Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid}
		switch name {
		case "s00000":
			refusal.Message = "ValidatingAdmissionPolicy 'owners' with binding 'all' denied request: it has no owner"
			refusal.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Message: "it has no owner"}}}
		case "s00001":
			refusal.Message = `Secret "s00001" is invalid: data[x]: Invalid value: "hunter2": too short`
			refusal.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{
				{Type: metav1.CauseTypeFieldValueInvalid, Field: "data[x]", Message: `Invalid value: "hunter2": too short`},
				{Type: metav1.CauseTypeForbidden, Field: "data", Message: "Forbidden: field is immutable"},
			}}
		default:
			return nil
		}
		return refusal
	})
	o := options(t, s)
	o.Concurrency = 1
	_, got := run(t, o)
	want := []string{
		"ValidatingAdmissionPolicy 'owners' with binding 'all' denied request: it has no owner",
		"no longer valid: data[x]: Invalid value; data: Forbidden: field is immutable",
	}
	for i, f := range got.Failures {
		if f.Reason != want[i] {
			t.Errorf("%s: reason %q, want %q", f.Name, f.Reason, want[i])
		}
	}
	if len(got.Failures) != 2 {
		t.Errorf("got %+v", got)
	}
}

// A resource that cannot be listed does not hide the others.
func TestNotListed(t *testing.T) {
	s := newAPIServer(t, 10)
	s.Answer("/apis/apps/v1/deployments", http.StatusForbidden)
	o := options(t, s)
	o.Resources = []string{"deployments.apps", "secrets"}
	r, err := reencrypt.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if f := found(t, r); f.ID != reencrypt.NotListed || f.Subject != "deployments.apps" || s.stale() != 0 {
		t.Errorf("got %+v with %d stale, want the Secrets rewritten", f, s.stale())
	}
}

func TestWildcards(t *testing.T) {
	for wildcard, want := range map[string]string{"*.": "[secrets]", "*.apps": "[deployments.apps]", "*.*": "[secrets deployments.apps]"} {
		s := newAPIServer(t, 10)
		o := options(t, s)
		o.Resources = []string{wildcard, strings.Trim(strings.Fields(want)[0], "[]")}
		r, err := reencrypt.Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, res := range r.Resources {
			names = append(names, res.Name)
		}
		if fmt.Sprint(names) != want {
			t.Errorf("%s: got %v, want %s", wildcard, names, want)
		}
	}
}

// A dry run has every patch checked, and writes nothing.
func TestDryRun(t *testing.T) {
	s := newAPIServer(t, 10)
	s.answer(func(name string) (int, metav1.StatusReason) {
		if name == "s00003" {
			return http.StatusForbidden, metav1.StatusReasonForbidden
		}
		return 0, ""
	})
	o := options(t, s)
	o.DryRun = true
	r, got := run(t, o)
	if f := found(t, r); f.ID != reencrypt.Refused || !r.DryRun || got.Objects != 10 || got.Rewritten != 0 || s.patched() != 10 || s.stale() != 5 {
		t.Errorf("got %+v with %d stale after %d patches, want 10 checked and none written", got, s.stale(), s.patched())
	}
}

func TestCredentialsExpire(t *testing.T) {
	s := newAPIServer(t, 10)
	s.answer(func(string) (int, metav1.StatusReason) {
		return http.StatusUnauthorized, metav1.StatusReasonUnauthorized
	})
	refused(t, options(t, s), "no longer accepts the kubeconfig's credentials")
}

// A run that ends in the middle of a page is resumed at that page.
func TestGoesOn(t *testing.T) {
	s := newAPIServer(t, 1000)
	o := options(t, s)
	o.State = filepath.Join(t.TempDir(), "state.json")
	ctx, cancel := context.WithCancel(t.Context())
	s.answer(func(name string) (int, metav1.StatusReason) {
		if name == "s00450" {
			cancel()
		}
		return 0, ""
	})
	r, err := reencrypt.Run(ctx, o)
	n := r.Resources[0].Objects
	if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("after %d objects of secrets: interrupted: run this again with the same --state", n)) ||
		n < 440 || n > 460 {
		t.Fatalf("after %d objects: %v", n, err)
	}
	s.OnPatch(nil)
	s.Compact() // the continue token has expired by then
	before, patched := len(s.Requests()), s.patched()
	r, got := run(t, o)
	if !r.Resumed || got.Objects != 1000 || got.Rewritten+got.Current != 1000 || s.stale() != 0 {
		t.Errorf("got %+v, want 1000 objects, and none stale", got)
	}
	if first := s.positions(before)[0]; first != "s00400" {
		t.Errorf("resumed from %q, want s00400", first)
	}
	for _, p := range s.patches()[patched:] {
		if name := secretOf(p); name < "s00400" {
			t.Errorf("%s was patched again", name)
		}
	}
}

func TestStateOfSomethingElse(t *testing.T) {
	s := newAPIServer(t, 400)
	o := options(t, s)
	o.State = filepath.Join(t.TempDir(), "state.json")
	write := func(cluster, hash string) {
		t.Helper()
		text := fmt.Sprintf(`{"version":1,"cluster":%q,"keyIDHash":%q,"resources":{"secrets":{"name":"secrets","objects":200,"continue":"s00200"}}}`, cluster, hash)
		if err := os.WriteFile(o.State, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("another", current)
	refused(t, o, "is the state of another cluster")
	if err := os.WriteFile(o.State, []byte("apiVersion: v1"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, o, "is not a state file of this command")
	if s.patched() != 0 {
		t.Error("something was patched")
	}
	// Before the next rotation of the key.
	write(apiservertest.ClusterUID, older)
	if r, got := run(t, o); r.Resumed || got.Objects != 400 || s.patched() != 400 {
		t.Errorf("got %+v after %d patches, want it to start over", got, s.patched())
	}
}

func TestRate(t *testing.T) {
	s := newAPIServer(t, 30)
	o := options(t, s)
	o.Rate = 100
	began := time.Now()
	run(t, o)
	if took, least := s.patches()[29].At.Sub(began), 290*time.Millisecond; took < least {
		t.Errorf("30 patches at 100/s took %s, want %s at least", took, least)
	}
}

// Patches that wait for the rate limit longer than the patience do not mean that the
// API server is gone.
func TestSlowRate(t *testing.T) {
	s := newAPIServer(t, 16)
	o := options(t, s)
	o.Rate, o.Concurrency, o.Patience = 2, 16, 5*time.Second // the last one waits for 7.5s
	if _, got := run(t, o); got.Objects != 16 {
		t.Errorf("got %+v, want 16 patched", got)
	}
}

func TestConcurrency(t *testing.T) {
	s := newAPIServer(t, 100)
	hold := make(chan struct{})
	s.OnPatch(func(ctx context.Context, _ string) *metav1.Status {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return nil
	})
	o := options(t, s)
	o.Concurrency = 5
	ended := make(chan error, 1)
	go func() { _, err := reencrypt.Run(t.Context(), o); ended <- err }()
	for deadline := time.Now().Add(10 * time.Second); s.Busiest() < 5; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d concurrent patches, want 5", s.Busiest())
		}
	}
	close(hold)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := s.Busiest(); got != 5 {
		t.Errorf("%d concurrent patches, want 5", got)
	}
}

func TestRefusesToStart(t *testing.T) {
	tests := map[string]struct {
		arrange func(s apiServer, o *reencrypt.Options)
		want    string
	}{
		"an API server has the older key_id": {func(s apiServer, _ *reencrypt.Options) { s.Learn(older) },
			"does not know the plugins' key_id yet (hash sha256:222222222222…, provider trousseau)"},
		"another API server has": {func(s apiServer, o *reencrypt.Options) {
			other := newAPIServer(t, 0)
			other.Learn(older)
			o.APIServers = []string{s.URL(), other.URL()}
		}, "does not know the plugins' key_id yet"},
		"a plugin has the older key_id": {func(_ apiServer, o *reencrypt.Options) {
			o.Plugins.Nodes = append(o.Plugins.Nodes, plugin(t, older))
		}, "The nodes disagree on key_id"},
		"a plugin does not answer": {func(_ apiServer, o *reencrypt.Options) {
			gone, err := fleet.ParseNode("127.0.0.1:1")
			if err != nil {
				t.Fatal(err)
			}
			o.Plugins.Nodes = append(o.Plugins.Nodes, gone)
		}, "127.0.0.1:1 is unreachable: connection refused"},
		"an API server's plugin is not healthy": {func(s apiServer, _ *reencrypt.Options) {
			s.Answer("/readyz/kms-providers", http.StatusInternalServerError)
		}, "is not ready; check /readyz/kms-providers"},
		"whom the API server does not know": {func(s apiServer, o *reencrypt.Options) {
			s.Answer("/readyz/kms-providers", http.StatusUnauthorized)
			o.Wait = time.Hour // would not help
		}, "does not accept the kubeconfig's credentials (401)"},
		"who may not see its pages": {func(s apiServer, o *reencrypt.Options) {
			s.Answer("/metrics", http.StatusForbidden)
			o.Wait = time.Hour
		}, "allow get on the nonResourceURLs /metrics and /readyz/*"},
		"an API server is named twice": {func(s apiServer, o *reencrypt.Options) {
			o.APIServers = []string{s.URL(), strings.Replace(s.URL(), "127.0.0.1", "localhost", 1)}
			o.Wait = time.Hour // would not help
		}, "are the same API server"},
		"not all API servers are named": {func(s apiServer, o *reencrypt.Options) {
			s.Publish(netip.MustParseAddrPort("10.0.0.1:6443"), netip.MustParseAddrPort("10.0.0.2:6443"))
			o.APIServers = []string{s.URL()}
		}, "the cluster has 2 API servers, https://10.0.0.1:6443, https://10.0.0.2:6443: give each"},
		"no such resource": {func(_ apiServer, o *reencrypt.Options) { o.Resources = []string{"secret"} },
			"has no resource secret that can be listed and patched"},
		"one that cannot be patched": {func(_ apiServer, o *reencrypt.Options) { o.Resources = []string{"bindings"} },
			"has no resource bindings that can be listed and patched"},
		"no such group": {func(_ apiServer, o *reencrypt.Options) { o.Resources = []string{"widgets.example.com"} },
			"has no resource widgets.example.com"},
		"a resource without its group": {func(_ apiServer, o *reencrypt.Options) { o.Resources = []string{"deployments"} },
			"did you mean deployments.apps?"},
		"the state cannot be written": {func(_ apiServer, o *reencrypt.Options) { o.State = filepath.Join(t.TempDir(), "none", "s.json") },
			"writing --state: "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newAPIServer(t, 10)
			o := options(t, s)
			test.arrange(s, &o)
			refused(t, o, test.want)
			if s.patched() != 0 {
				t.Errorf("%d patches were sent", s.patched())
			}
		})
	}
}

// It waits if --wait is given.
func TestWaits(t *testing.T) {
	s := newAPIServer(t, 10)
	s.Learn(older)
	o := options(t, s)
	o.Wait = time.Minute
	var told []string
	o.Waiting = func(reason string) {
		told = append(told, reason)
		s.Learn(current)
	}
	if _, got := run(t, o); got.Rewritten != 5 {
		t.Errorf("got %+v, want 5 rewritten", got)
	}
	if len(told) != 1 || !strings.Contains(told[0], "does not know the plugins' key_id yet") {
		t.Errorf("told %q, want the reason for waiting, once", told)
	}
}

// The key is rotated again while objects are rewritten.
func TestRotatedMeanwhile(t *testing.T) {
	s := newAPIServer(t, 10)
	o := options(t, s)
	o.Patience = 5 * time.Second
	s.answer(func(string) (int, metav1.StatusReason) {
		s.Learn(newer)
		return 0, ""
	})
	refused(t, o, "does not know the plugins' key_id yet")
}

// A rotation that everything has noticed makes the run start over, so that nothing is left
// under the key_id from before; unless one key_id is wanted.
func TestStartsOver(t *testing.T) {
	for _, c := range []struct {
		name, want string
		patches    int
	}{{"any key_id", "", 10 + 19}, {"wanted", current, 10}} {
		t.Run(c.name, func(t *testing.T) {
			s := newAPIServer(t, 20)
			o := options(t, s)
			o.Stale, o.KeyIDHash, o.Patience, o.Concurrency = s.inEtcd, c.want, 3*time.Second, 1
			var has atomic.Value
			has.Store(current)
			o.Plugins.Nodes = []fleet.Node{pluginOf(t, func() string { return has.Load().(string) })}
			s.answer(func(string) (int, metav1.StatusReason) {
				if s.patched() == 10 { // the last of those that are stale
					has.Store(newer)
					s.Learn(newer)
				}
				return 0, ""
			})
			var told []string
			o.Waiting = func(reason string) { told = append(told, reason) }
			r, err := reencrypt.Run(t.Context(), o)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), "not sha256:222222222222…") || s.patched() != c.patches {
					t.Errorf("got error %v after %d patches, want no other key_id than the one wanted", err, s.patched())
				}
				return
			}
			if err != nil || r.KeyIDHash != newer || len(s.found(newer)) != 0 || s.patched() != c.patches || len(r.Findings) != 0 {
				t.Errorf("got %+v, %v after %d patches, with %d not under the newest key_id", r, err, s.patched(), len(s.found(newer)))
			}
			if len(told) != 1 || !strings.Contains(told[0], "the key was rotated during the run") {
				t.Errorf("told %q", told)
			}
		})
	}
}

// Trousseau is not the first provider, or none: that is known after the first page.
func TestAnotherProviderWrites(t *testing.T) {
	s := newAPIServer(t, 1000)
	s.Load("", "", apiservertest.Provider)
	r, got := run(t, options(t, s))
	if f := found(t, r); f.ID != reencrypt.OtherProvider || got.Objects != 200 || got.Provider != "" ||
		!strings.Contains(f.Text, "kube-apiserver writes secrets with the provider identity") {
		t.Errorf("%+v after %d objects", f, got.Objects)
	}
}

func TestNotEncrypted(t *testing.T) {
	s := newAPIServer(t, 10)
	s.Load("")
	r, _ := run(t, options(t, s))
	if f := found(t, r); f.ID != reencrypt.NotEncrypted {
		t.Errorf("got %+v", f)
	}
}

// renamed gives the plugin a second name: objects are written under it, and the earlier
// ones are under the older name and the same key_id.
func renamed(t *testing.T, n int) apiServer {
	t.Helper()
	s := apiServer{apiservertest.Start(t, apiservertest.Options{})}
	s.Learn(current)
	s.Store(n, current)
	s.Load(hashOf(renamedConfig), "renamed", apiservertest.Provider)
	s.Learn(current)
	return s
}

const renamedConfig = `kind: EncryptionConfiguration
apiVersion: apiserver.config.k8s.io/v1
resources:
- resources: ["*.*"]
  providers:
  - kms: {apiVersion: v2, name: wildcard, endpoint: unix:///a.sock}
- resources: [secrets]
  providers:
  - kms: {apiVersion: v2, name: renamed, endpoint: unix:///a.sock}
  - kms: {apiVersion: v2, name: trousseau, endpoint: unix:///a.sock}
`

func hashOf(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }

// inEtcd finds the Secrets that are stale, as etcd shows them.
func (s apiServer) inEtcd(_ context.Context, _ string, current func(provider, hash string) bool, each func(string, int64) error) error {
	for _, found := range s.Secrets() {
		if current(found.Provider, found.KeyIDHash) {
			continue
		}
		if err := each(apiservertest.Namespace+"/"+found.Name, found.Revision); err != nil {
			return err
		}
	}
	return nil
}

// A provider was renamed: what is under the old name and the current key_id is stale.
func TestRenamedProvider(t *testing.T) {
	for name, arrange := range map[string]func(s apiServer, o *reencrypt.Options){
		"every object is patched":          func(apiServer, *reencrypt.Options) {},
		"etcd":                             func(s apiServer, o *reencrypt.Options) { o.Stale = s.inEtcd },
		"etcd and EncryptionConfiguration": func(s apiServer, o *reencrypt.Options) { o.Stale, o.EncryptionConfig = s.inEtcd, []byte(renamedConfig) },
	} {
		t.Run(name, func(t *testing.T) {
			s := renamed(t, 10)
			o := options(t, s)
			arrange(s, &o)
			r, got := run(t, o)
			if got.Rewritten != 10 || got.Provider != "renamed" || len(r.Findings) > 0 {
				t.Errorf("got %+v, want 10 rewritten under the new name", got)
			}
			for _, one := range s.Secrets() {
				if one.Provider != "renamed" || one.KeyIDHash != current {
					t.Errorf("%+v", one)
				}
			}
			if again, got := run(t, o); got.Rewritten != 0 || len(again.Findings) > 0 || got.Provider != "renamed" {
				t.Errorf("again: %+v, want nothing to do under %s", got, "renamed")
			}
		})
	}
}

// The gate does not open because the provider of another name has the key_id.
func TestOtherNameKnows(t *testing.T) {
	s := renamed(t, 10)
	s.LearnBy("renamed", older)
	o := options(t, s)
	refused(t, o, "provider renamed): it asks its plugin once a minute; run this again later, or with --wait 2m; if it is not Trousseau, give --encryption-config")
	o.EncryptionConfig = []byte(renamedConfig)
	refused(t, o, "does not know the plugins' key_id yet (hash sha256:222222222222…, provider renamed)")

	// Only the provider that writes has to know it.
	s.LearnBy("renamed", current)
	s.LearnBy(apiservertest.Provider, older)
	if _, got := run(t, o); got.Rewritten != 10 {
		t.Errorf("got %+v", got)
	}
	o.EncryptionConfig = nil
	refused(t, o, "provider trousseau): it asks")
}

func TestEncryptionConfig(t *testing.T) {
	for name, c := range map[string]struct{ loaded, given, want string }{
		"another file":        {"sha256:other", renamedConfig, "has loaded another EncryptionConfiguration than --encryption-config (sha256:other…, not sha256:"},
		"an older API server": {"", renamedConfig, "does not say which EncryptionConfiguration it has loaded"},
		"nonsense":            {"", "\t", "--encryption-config: not an EncryptionConfiguration"},
		"not first":           {"", "resources: [{resources: ['*.'], providers: [{identity: {}}]}]", "secrets: the first provider in EncryptionConfiguration is not KMS v2"},
		"not in it":           {"", "resources: [{resources: ['*.apps'], providers: [{identity: {}}]}]", "secrets is not in EncryptionConfiguration"},
	} {
		t.Run(name, func(t *testing.T) {
			s := renamed(t, 1)
			s.Load(c.loaded, "renamed", apiservertest.Provider)
			o := options(t, s)
			o.EncryptionConfig = []byte(c.given)
			refused(t, o, c.want)
			if s.patched() != 0 {
				t.Error("something was patched")
			}
		})
	}
}

// With a key_id to wait for, an older one that all agree on does not open the gate.
func TestAwaitsKeyID(t *testing.T) {
	s := newAPIServer(t, 1)
	o := options(t, s)
	o.KeyIDHash = newer
	refused(t, o, "the plugins do not have the newest key version yet (hash sha256:222222222222…, not sha256:333333333333…)")
}

func newMigrating(t *testing.T, n int) apiServer {
	s := apiServer{apiservertest.Start(t, apiservertest.Options{Migrates: true})}
	s.Learn(older)
	s.Learn(current)
	s.Store(n, older)
	return s
}

func TestMigration(t *testing.T) {
	s := newMigrating(t, 10)
	o := options(t, s)
	o.Via = reencrypt.Auto
	r, got := run(t, o)
	if f := found(t, r); f.ID != reencrypt.NotProven || f.Severity != finding.Warning || got.Migration != "trousseau-secrets-0" || got.Provider != apiservertest.Provider ||
		got.Objects != 0 || s.patched() != 0 || s.stale() != 0 {
		t.Errorf("got %+v, %+v, %d patches and %d stale, want it migrated, but not proven", got, f, s.patched(), s.stale())
	}

	// If nothing in etcd is stale, there is no migration.
	o.Stale = s.inEtcd
	if r, got := run(t, o); len(r.Findings) != 0 || got.Migration != "" || got.Objects != 0 || s.patched() != 0 {
		t.Errorf("with etcd, again: %+v, findings %+v, %d patches, want nothing done", got, r.Findings, s.patched())
	}

	// What it has skipped is in etcd, and is patched.
	s.Store(1, older)
	looks := 0
	o.Stale = func(ctx context.Context, name string, current func(provider, hash string) bool, each func(string, int64) error) error {
		if looks++; looks == 2 { // after the migration
			s.Store(1, older)
		}
		return s.inEtcd(ctx, name, current, each)
	}
	if r, got := run(t, o); len(r.Findings) != 0 || got.Migration == "" || got.Rewritten != 1 || s.patched() != 1 || s.stale() != 0 {
		t.Errorf("with etcd: %+v, findings %+v, %d stale", got, r.Findings, s.stale())
	}
}

// Where a migration fails, the objects are patched, unless only a migration is wanted.
func TestMigrationFails(t *testing.T) {
	s := newMigrating(t, 10)
	s.answer(func(name string) (int, metav1.StatusReason) {
		if name == "s00003" {
			return http.StatusForbidden, metav1.StatusReasonForbidden
		}
		return 0, ""
	})
	o := options(t, s)
	o.Via = reencrypt.Migration
	r, got := run(t, o)
	if f := found(t, r); f.ID != reencrypt.MigrationFailed || !strings.Contains(f.Text, "migration trousseau-secrets-0 has failed: migration encountered unhandled error: refused by the test") ||
		s.stale() != 7 || got.Migration != "" {
		t.Errorf("got %+v with %d stale", f, s.stale())
	}
	o.Via = reencrypt.Auto
	r, got = run(t, o)
	if f := found(t, r); f.ID != reencrypt.Refused || got.Rewritten != 6 || got.Current != 3 || s.stale() != 1 || !strings.Contains(got.Note, "has failed") {
		t.Errorf("got %+v, %+v with %d stale, want the rest patched", f, got, s.stale())
	}
	s.OnPatch(nil)
	s.StopController()
	o.Patience = time.Second
	if r, got = run(t, o); len(r.Findings) != 0 || got.Rewritten != 1 || s.stale() != 0 || !strings.Contains(got.Note, "has not begun the migration") {
		t.Errorf("without kube-controller-manager: %+v, want the rest patched", got)
	}
	o = options(t, newAPIServer(t, 10))
	o.Via = reencrypt.Migration
	r, _ = run(t, o)
	if f := found(t, r); f.ID != reencrypt.MigrationFailed || !strings.Contains(f.Text, "does not serve storagemigration.k8s.io/v1") {
		t.Errorf("an older API server: got %+v", f)
	}
}

// The Service kubernetes lists the API servers' addresses.
func TestFindsAPIServers(t *testing.T) {
	s, other := newAPIServer(t, 10), newAPIServer(t, 0)
	other.Learn(older)
	var published []netip.AddrPort
	var urls []string
	for _, server := range []apiServer{s, other} {
		direct := httptest.NewTLSServer(server)
		t.Cleanup(direct.Close)
		published = append(published, netip.MustParseAddrPort(direct.Listener.Addr().String()))
		urls = append(urls, direct.URL)
	}
	s.Publish(published...)
	o := options(t, s)
	o.Config.Insecure = true
	refused(t, o, "the API server "+urls[1]+" does not know the plugins' key_id yet")
	other.Learn(current)
	if r, _ := run(t, o); fmt.Sprint(r.APIServers) != fmt.Sprint(urls) {
		t.Errorf("checked %v, want %v", r.APIServers, urls)
	}
}

func TestParseRate(t *testing.T) {
	for text, want := range map[string]float64{"50/s": 50, "50": 50, "600/m": 10, "7200/h": 2, "0.5/s": 0.5} {
		if got, err := reencrypt.ParseRate(text); err != nil || float64(got) != want {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1/s", "50/", "50/d", "/s", "fast", "NaN", "Inf/s", "1/s/s"} {
		if got, err := reencrypt.ParseRate(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

// With a list of stale objects from elsewhere, only those are patched. Failed ones
// are found again by the next run.
func TestStale(t *testing.T) {
	s := newAPIServer(t, 1000)
	s.answer(func(name string) (int, metav1.StatusReason) {
		if name == "s00003" {
			return http.StatusForbidden, metav1.StatusReasonForbidden
		}
		return 0, ""
	})
	o := options(t, s)
	o.State = filepath.Join(t.TempDir(), "state.json")
	o.Stale = s.inEtcd
	var totals []int64
	o.Progress = func(_ string, _, total int64) { totals = append(totals, total) }
	_, got := run(t, o)
	if got.Objects != 500 || got.Rewritten != 499 || len(got.Failures) != 1 || s.patched() != 500 || s.stale() != 1 {
		t.Errorf("got %+v after %d patches, want the 500 that are stale, but for one", got, s.patched())
	}
	if slices.ContainsFunc(totals, func(n int64) bool { return n != 500 }) || len(totals) != 500 {
		t.Errorf("totals of progress %v, want 500 each time", totals)
	}
	s.OnPatch(nil)
	if r, got := run(t, o); got.Objects != 500 || got.Rewritten != 500 || len(r.Findings) != 0 || s.patched() != 501 {
		t.Errorf("got %+v after %d patches, want one more", got, s.patched())
	}
}

// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator rotates the key and rewrites all Secrets while users change theirs: too early at first, then until
// it is killed, and then to the end.
func TestReencrypt(t *testing.T) {
	if _, err := trousseauctl(); err != nil { // build it before the test is timed
		t.Fatal(err)
	}
	bed := testbed.New(t, &report, "5 reencrypt")
	c := testbed.SetUp(bed, testbed.Options{TrousseauFlags: []string{"--probe-interval=1s"}})
	api, trousseau := c.Nodes[0].APIServer, c.Nodes[0].Trousseau
	const n, writers, rate = 10_000, 20, "1000/s"
	createSecrets(t, api, "old-", n)
	createSecrets(t, api, "busy-", writers)
	one := secret(t, api, "old-7")
	v1 := trousseau.KeyID()

	state := filepath.Join(bed.Dir, "reencrypt.json")
	args := []string{"reencrypt", "-o", "json", "--state", state, "--rate", rate,
		"--kubeconfig", bed.Write("admin.conf", api.Kubectl("config", "view", "--raw", "--flatten")),
		"--ops", opsAddr(t, trousseau)}

	awaitPoll(t, bed, api)
	c.Vault.CLI("write", "-f", "transit/keys/"+testbed.Key+"/rotate")
	bed.Await(15*time.Second, "trousseau to have the new version", func(context.Context) error {
		if trousseau.KeyID() == v1 {
			return errors.New("still " + v1)
		}
		return nil
	})
	early := start(t, args...)
	if code := early.wait(); code != 1 || !strings.Contains(early.stderr.String(), "not started") ||
		!strings.Contains(early.stderr.String(), "does not know the plugins' key_id yet") {
		t.Fatalf("before the API server knows the key_id: exit code %d, %s, want a refusal", code, early.stderr)
	}
	if got := c.Etcd.KeyIDs(); !maps.Equal(got, map[string]int{v1: n + writers}) {
		t.Fatalf("after it was refused, Secrets by key_id: %v, want %d under %s", got, n+writers, v1)
	}

	users := startUsers(t, api, "busy-", writers)
	args = append(args, "--wait", "2m")
	killed := start(t, args...)
	bed.Await(3*time.Minute, "a third to be rewritten", func(context.Context) error {
		if done := doneOf(state); done < n/3 {
			return fmt.Errorf("%d rewritten", done)
		}
		return nil
	})
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if code := killed.wait(); code != -1 {
		t.Fatalf("ended with exit code %d before the kill: %s", code, killed.stderr)
	}
	before, done := c.Etcd.KeyIDs(), doneOf(state)
	if before[v1] == 0 || before[v1] > n-done+writers {
		t.Errorf("after the kill, Secrets by key_id: %v, but %d recorded as done", before, done)
	}

	began := time.Now()
	resumed := start(t, args...)
	code := resumed.wait()
	took := time.Since(began)
	last := users.stop(t)
	if code != 0 {
		t.Fatalf("resumed: exit code %d, want 0: %s\n%s", code, resumed.stderr, resumed.stdout)
	}
	r := resumed.report(t)
	if secrets := r.Report.Resources[0]; r.Verdict != "ok" || !r.Report.Resumed || secrets.Objects != n+writers || secrets.Current > 200+writers {
		t.Errorf("resumed: %+v, want %d objects, without reading again those done before the kill", r, n+writers)
	}
	if got := c.Etcd.KeyIDs(); len(got) != 1 || got[trousseau.KeyID()] != n+writers {
		t.Errorf("in the end, Secrets by key_id: %v, want %d under %s", got, n+writers, trousseau.KeyID())
	}
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("the state file is still there: %v", err)
	}
	writes := 0
	for name, want := range last {
		if got := string(secret(t, api, name).Data["value"]); got != want {
			t.Errorf("%s is %q, want %q as written", name, got, want)
		}
		writes += users.counts[name]
	}
	now := secret(t, api, "old-7")
	now.ResourceVersion = one.ResourceVersion
	if !reflect.DeepEqual(now, one) {
		t.Errorf("a Secret is %+v, want %+v as before", now.ObjectMeta, one.ObjectMeta)
	}
	bed.Count(n+writers+writes, 0)
	bed.Observe("%d Secrets; killed after %d, the rest in %s at %s at most, with %d concurrent writes of %d users, none lost",
		n+writers, done, took.Round(100*time.Millisecond), rate, writes, writers)

	again := start(t, append(args, "--rate", "1000/s")...)
	if code := again.wait(); code != 0 {
		t.Fatalf("second run: exit code %d: %s", code, again.stderr)
	}
	if secrets := again.report(t).Report.Resources[0]; secrets.Rewritten != 0 || secrets.Current != n+writers {
		t.Errorf("second run: %+v, want nothing rewritten", secrets)
	}
}

// awaitPoll waits until an API server calls its plugin's Status by itself, once a minute. For 20 seconds after
// that, a readiness request does not make it call again (kmsv2PluginHealthzPositiveInterval and
// kmsPluginHealthzPositiveTTL in apiserver/pkg/server/options/encryptionconfig/config.go).
func awaitPoll(t *testing.T, bed *testbed.Bed, api *testbed.APIServer) {
	t.Helper()
	config, err := apiserver.Kubeconfig(api.Kubeconfig(), "")
	if err != nil {
		t.Fatal(err)
	}
	server, err := apiserver.New(config, config.Host)
	if err != nil {
		t.Fatal(err)
	}
	var first time.Time
	bed.Await(90*time.Second, "kube-apiserver to call Status by itself", func(ctx context.Context) error {
		ids, err := server.KeyIDs(ctx)
		if err != nil {
			return err
		}
		last := ids.Told["trousseau"].At
		if first.IsZero() {
			first = last
		}
		if last.Equal(first) {
			return fmt.Errorf("no call since %s", first.Format(time.TimeOnly))
		}
		return nil
	})
}

// With access to etcd, only stale Secrets are patched, followed by an audit.
func TestReencryptWithEtcd(t *testing.T) {
	bed := testbed.New(t, &report, "5 reencrypt with etcd")
	c := testbed.SetUp(bed, testbed.Options{TrousseauFlags: []string{"--probe-interval=1s"}})
	api, trousseau := c.Nodes[0].APIServer, c.Nodes[0].Trousseau
	const n = 1000
	createSecrets(t, api, "old-", n)
	v1 := trousseau.KeyID()
	c.Vault.CLI("write", "-f", "transit/keys/"+testbed.Key+"/rotate")
	args := []string{"reencrypt", "-o", "json", "--rate", "100/s", "--wait", "2m", "--endpoints", c.Etcd.URL,
		"--kubeconfig", bed.Write("admin.conf", api.Kubectl("config", "view", "--raw", "--flatten")),
		"--ops", opsAddr(t, trousseau)}
	bed.Await(15*time.Second, "trousseau to have the new version", func(context.Context) error {
		if trousseau.KeyID() == v1 {
			return errors.New("still " + v1)
		}
		return nil
	})
	killed := start(t, args...)
	bed.Await(3*time.Minute, "a third to be rewritten", func(context.Context) error {
		if left := c.Etcd.KeyIDs()[v1]; left > n*2/3 {
			return fmt.Errorf("%d not rewritten", left)
		}
		return nil
	})
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if code := killed.wait(); code != -1 {
		t.Fatalf("ended with exit code %d before the kill: %s", code, killed.stderr)
	}
	left := c.Etcd.KeyIDs()[v1]
	// The API server may still write patches in progress at the kill, at most 8 (--concurrency).
	for _, run := range []struct {
		what        string
		least, most int
	}{{"resumed", left - 8, left}, {"second run", 0, 0}} {
		c := start(t, args...)
		if code := c.wait(); code != 0 {
			t.Fatalf("%s: exit code %d: %s\n%s", run.what, code, c.stderr, c.stdout)
		}
		r := c.report(t)
		if got := r.Report.Resources[0]; got.Rewritten != got.Objects || got.Objects < run.least || got.Objects > run.most {
			t.Errorf("%s: %+v, want only the remaining %d to %d patched", run.what, got, run.least, run.most)
		}
		if r.Verdict != "ok" || r.Report.Audit == nil || r.Report.Audit.Objects != n || r.Report.UnderOther != 0 {
			t.Errorf("%s: %+v, want an audit of %d Secrets, all under the new key_id", run.what, r, n)
		}
	}
	if got := c.Etcd.KeyIDs(); !maps.Equal(got, map[string]int{trousseau.KeyID(): n}) {
		t.Errorf("in the end, Secrets by key_id: %v, want %d under %s", got, n, trousseau.KeyID())
	}
	bed.Observe("%d Secrets; killed with %d left, and only those were patched afterwards", n, left)
}

// command is a running trousseauctl.
type command struct {
	cmd            *exec.Cmd
	stdout, stderr *bytes.Buffer
}

func start(t *testing.T, args ...string) *command {
	t.Helper()
	path, err := trousseauctl()
	if err != nil {
		t.Fatal(err)
	}
	c := &command{exec.CommandContext(t.Context(), path, args...), new(bytes.Buffer), new(bytes.Buffer)}
	c.cmd.Stdout, c.cmd.Stderr = c.stdout, c.stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// wait returns the exit code; it is -1 after a kill.
func (c *command) wait() int {
	_ = c.cmd.Wait()
	return c.cmd.ProcessState.ExitCode()
}

// reencrypted is the document of reencrypt.
type reencrypted struct {
	Verdict  string
	Findings []struct {
		ID, Subject, Text string
		Objects           int
	}
	Report struct {
		Resumed   bool
		Resources []struct {
			Name, Provider, Migration, Note   string
			Objects, Rewritten, Current, Gone int
			Failures                          []struct{ Namespace, Name, Reason string }
		}
		UnderOther int
		Audit      *struct{ Objects int }
	}
}

func (c *command) report(t *testing.T) (r reencrypted) {
	t.Helper()
	if err := json.Unmarshal(c.stdout.Bytes(), &r); err != nil || len(r.Report.Resources) != 1 {
		t.Fatalf("%v in %s; %s", err, c.stdout, c.stderr)
	}
	return r
}

// doneOf returns how many objects a state file records as done.
func doneOf(file string) int {
	var state struct {
		Resources map[string]struct{ Objects int }
	}
	text, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(text, &state) != nil {
		return 0
	}
	return state.Resources["secrets"].Objects
}

func opsAddr(t *testing.T, p *testbed.Trousseau) string {
	t.Helper()
	for _, arg := range p.Args {
		if addr, found := strings.CutPrefix(arg, "--ops-addr="); found {
			return addr
		}
	}
	t.Fatal("trousseau has no --ops-addr")
	return ""
}

func secret(t *testing.T, api *testbed.APIServer, name string) *corev1.Secret {
	t.Helper()
	s, err := api.Client.CoreV1().Secrets(metav1.NamespaceDefault).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func createSecrets(t *testing.T, api *testbed.APIServer, prefix string, n int) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for i := range n {
		group.Go(func() error {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(prefix, i)}, Data: map[string][]byte{"value": []byte("0")}}
			_, err := api.Client.CoreV1().Secrets(metav1.NamespaceDefault).Create(ctx, s, metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// users continuously write to one Secret each.
type users struct {
	cancel context.CancelFunc
	group  errgroup.Group
	lock   sync.Mutex
	last   map[string]string // last written value, by the Secret's name
	counts map[string]int
}

func startUsers(t *testing.T, api *testbed.APIServer, prefix string, n int) *users {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	u := &users{cancel: cancel, last: make(map[string]string), counts: make(map[string]int)}
	for i := range n {
		name := fmt.Sprint(prefix, i)
		u.group.Go(func() error {
			value := "0"
			for count := 1; ctx.Err() == nil; count++ {
				next := fmt.Sprint(count)
				if err := update(t.Context(), api, name, value, next); err != nil {
					return err
				}
				value = next
				u.lock.Lock()
				u.last[name], u.counts[name] = value, count
				u.lock.Unlock()
				select { // leaves CPU time to others
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
			return nil
		})
	}
	return u
}

// update does what a controller does: read, change, write, and retry after a conflict. The value read must be the
// last one written.
func update(ctx context.Context, api *testbed.APIServer, name, from, to string) error {
	secrets := api.Client.CoreV1().Secrets(metav1.NamespaceDefault)
	for {
		s, err := secrets.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := string(s.Data["value"]); got != from {
			return fmt.Errorf("%s is %q, but %q was written last", name, got, from)
		}
		s.Data["value"] = []byte(to)
		if _, err = secrets.Update(ctx, s, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			return err
		}
	}
}

// stop returns the last value written by each user.
func (u *users) stop(t *testing.T) map[string]string {
	t.Helper()
	u.cancel()
	if err := u.group.Wait(); err != nil {
		t.Error(err)
	}
	return u.last
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kmsservice "k8s.io/kms/pkg/service"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// writeWindow is how long kube-apiserver keeps writing after the last good Status
// (kmsv2PluginWriteDEKSourceMaxTTL in package encryptionconfig). It is not
// configurable in a real kube-apiserver.
const writeWindow = 3 * time.Minute

// kubeletPace is how often kubelet requests /readyz from kube-apiserver in a kubeadm
// cluster. This makes kube-apiserver call Status every 20 seconds.
const kubeletPace = time.Second

// Users keep reading and writing Secrets during a Vault outage, and recovery needs
// no action except to bring Vault back. This is one outage that changes its kind every
// minute. Nothing is shortened: it is longer than kube-apiserver's write window and
// shorter than the default grace. A second node without a grace shows that its writes
// do end. To save time, TestVaultOutageOfEachKind runs concurrently.
func TestVaultOutage(t *testing.T) {
	t.Parallel()
	c := testbed.SetUp(testbed.New(t, &report, "4 Vault outage of four minutes"), testbed.Options{ControlPlanes: 2})
	node, graceless := c.Nodes[0], c.Nodes[1]
	graceless.Trousseau.Stop()
	graceless.Trousseau.Args = append(graceless.Trousseau.Args, "--outage-grace=0")
	graceless.Trousseau.Start()
	graceless.Trousseau.AwaitReady()

	secrets := create(t, node.APIServer, "old-", 10)
	if err := write(t.Context(), graceless.APIServer, "old-0"); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		// Now each API server has both seeds in its cache.
		secrets.mustBeReadable(t, n.APIServer, "before the outage")
	}
	sealed := seal(t, node.Trousseau)
	keyID := node.Trousseau.KeyID()
	processes := c.PIDs()
	load := c.StartLoad(testbed.LoadOptions{APIServers: []*testbed.APIServer{node.APIServer}})
	load.AwaitMore(20)

	vault := c.Vault.Nodes[0]
	began := time.Now()
	watch := &outage{t: t, node: node, graceless: graceless, secrets: secrets, keyID: keyID, began: began}
	for _, kind := range []struct {
		name  string
		begin func()
	}{
		{"network cut", c.Proxy.Drop},
		{"60 s slow", func() { c.Proxy.Delay(time.Minute) }},
		{"stopped", func() { c.Proxy.Refuse(); vault.Stop() }},
		// The same state as after every start.
		{"sealed", func() { vault.Start(); c.Proxy.Pass() }},
	} {
		kind.begin()
		if kind.name == "network cut" {
			mustFail(t, node.Trousseau, sealed)
			mustFail(t, graceless.Trousseau, sealed)
			c.Await(10*time.Second, "/readyz and the metric to report degraded", degraded(node.Trousseau))
			c.Observe("degraded on /readyz and in metrics %s after the network was cut, with the first request that failed", since(began))
		}
		watch.everySecond(time.Minute, kind.name)
		load.MustHaveNoFailures(kind.name)
	}
	tally := load.Stop()
	lasted := time.Since(began)
	mustFail(t, node.Trousseau, sealed)
	c.Count(tally.Operations()+watch.looks, tally.Failures())
	c.Observe("an outage of %s (cut, slow, stopped, sealed), flags as by default: Secrets: %s; /readyz of kube-apiserver asked %d times, always ok",
		lasted.Round(time.Second), tally.Secrets, watch.looks)
	if watch.refused.IsZero() {
		t.Errorf("the node without grace never stopped writing; this test proves nothing")
	} else if after := watch.refused.Sub(began); after > writeWindow+20*time.Second || after < writeWindow-80*time.Second {
		t.Errorf("the node without grace refused writes after %s, want about %s", after, writeWindow)
	} else {
		c.Observe("a second node with --outage-grace=0: writes refused after %s, reads never", after.Round(time.Second))
	}

	ended := time.Now()
	vault.Unseal()
	for _, n := range c.Nodes {
		n.Trousseau.AwaitReady()
	}
	healthy := since(ended)
	for _, n := range c.Nodes {
		n.APIServer.AwaitReady()
	}
	c.Observe("Trousseau healthy %s after Vault was unsealed, both API servers after %s", healthy, since(ended))
	c.Await(time.Minute, "the node without grace to write again", func(ctx context.Context) error {
		return write(ctx, graceless.APIServer, "old-0")
	})
	processes[vault.Name] = vault.PID()
	mustBeAsBefore(t, c, secrets, processes)
}

// outage observes the two nodes during a long outage.
type outage struct {
	t               *testing.T
	node, graceless *testbed.Node
	secrets         remembered
	keyID           string

	began   time.Time
	looks   int
	refused time.Time // when the node without grace first refused a write
}

// everySecond checks both nodes for the given time, as often as kubelet probes
// /readyz.
func (o *outage) everySecond(long time.Duration, kind string) {
	o.t.Helper()
	kubelet := time.NewTicker(kubeletPace)
	defer kubelet.Stop()
	for end := time.Now().Add(long); time.Now().Before(end); {
		<-kubelet.C
		if err := o.look(o.t.Context()); err != nil {
			o.t.Fatalf("%s, %s after the outage began: %v", kind, since(o.began), err)
		}
	}
}

func (o *outage) look(ctx context.Context) error {
	o.looks++
	if err := pluginReady(ctx, o.node.APIServer); err != nil {
		return err
	}
	announced, err := o.node.Trousseau.KMS.Status(ctx)
	if err != nil {
		return fmt.Errorf("within the grace, Status: %w", err)
	}
	if announced.KeyID != o.keyID || announced.Healthz != "ok" {
		return fmt.Errorf("within the grace, Status: %q of key_id %s, want ok of %s", announced.Healthz, announced.KeyID, o.keyID)
	}
	if err := degraded(o.node.Trousseau)(ctx); err != nil {
		return err
	}
	// Only triggers the check; the result shows in the writes.
	_, _ = o.graceless.APIServer.Page(ctx, "/readyz/kms-providers")
	err = write(ctx, o.graceless.APIServer, "old-0")
	if err != nil && o.refused.IsZero() {
		o.refused = time.Now()
	}
	if err == nil && !o.refused.IsZero() {
		return errors.New("the node without grace writes again")
	}
	return errors.Join(o.secrets.readable(ctx, o.node.APIServer), o.secrets.readable(ctx, o.graceless.APIServer))
}

// The same for short outages of each kind. Shortened: Trousseau probes every second
// instead of every
// thirty, so that it notices without requests, and its grace is one minute instead
// of five. Each outage lasts until kube-apiserver has called Status during it: each
// good answer extends the write window by three minutes, so more of them would not
// change the result. The last outage exceeds the grace.
func TestVaultOutageOfEachKind(t *testing.T) {
	t.Parallel()
	c := testbed.SetUp(testbed.New(t, &report, "4 Vault outage of each kind"), testbed.Options{
		TrousseauFlags: []string{"--probe-interval=1s", "--outage-grace=1m"},
	})
	node, vault := c.Nodes[0], c.Vault.Nodes[0]
	secrets := create(t, node.APIServer, "old-", 10)
	sealed := seal(t, node.Trousseau)
	processes := c.PIDs()
	load := c.StartLoad(testbed.LoadOptions{APIServers: []*testbed.APIServer{node.APIServer}})
	load.AwaitMore(20)

	for _, kind := range []struct {
		name       string
		begin, end func()
	}{
		{"network cut", c.Proxy.Drop, c.Proxy.Pass},
		{"60 s slow", func() { c.Proxy.Delay(time.Minute) }, c.Proxy.Pass},
		{"stopped", func() { c.Proxy.Refuse(); vault.Stop() }, func() { vault.Start(); c.Proxy.Pass(); vault.Unseal() }},
		{"sealed", vault.Seal, vault.Unseal},
	} {
		began := time.Now()
		kind.begin()
		// Without requests, a probe that hangs ends after --probe-timeout.
		c.Await(15*time.Second, kind.name+": /readyz and the metric to report degraded", degraded(node.Trousseau))
		told := since(began)
		awaitStatus(t, c, kind.name)
		mustFail(t, node.Trousseau, sealed)
		secrets.mustBeReadable(t, node.APIServer, kind.name)
		lasted := since(began)
		beyond := ""
		if kind.name == "sealed" {
			beyond = outliveGrace(t, c, began)
		}
		load.AwaitMore(10)
		load.MustHaveNoFailures(kind.name)

		ended := time.Now()
		kind.end()
		node.Trousseau.AwaitReady()
		healthy := since(ended)
		node.APIServer.AwaitReady()
		if err := unseal(t.Context(), node.Trousseau, sealed); err != nil {
			t.Errorf("after %s: %v", kind.name, err)
		}
		c.Observe("%s: degraded after %s, kube-apiserver ok for the %s; %shealthy %s after the end",
			kind.name, told, lasted, beyond, healthy)
	}
	tally := load.Stop()
	c.Count(tally.Operations(), tally.Failures())
	c.Observe("during that, Secrets: %s", tally.Secrets)
	processes[vault.Name] = vault.PID()
	mustBeAsBefore(t, c, secrets, processes)
}

// awaitStatus requests /readyz, which must be ok, until kube-apiserver has had one
// more good answer from Status.
func awaitStatus(t *testing.T, c *testbed.Cluster, kind string) {
	t.Helper()
	node := c.Nodes[0]
	good := func() float64 {
		return node.Trousseau.MustMetric("trousseau_kms_requests_total", "method", "Status", "code", "OK")
	}
	before := good()
	kubelet := time.NewTicker(kubeletPace)
	defer kubelet.Stop()
	c.Await(time.Minute, kind+": kube-apiserver to ask Status", func(ctx context.Context) error {
		<-kubelet.C
		if err := pluginReady(ctx, node.APIServer); err != nil {
			t.Fatalf("%s, within the grace: %v", kind, err)
		}
		if good() == before {
			return errors.New("it has not asked")
		}
		return nil
	})
}

// outliveGrace waits until the grace has ended and kube-apiserver reports it, and
// returns the observations.
func outliveGrace(t *testing.T, c *testbed.Cluster, began time.Time) string {
	t.Helper()
	node := c.Nodes[0]
	c.Await(90*time.Second, "Status to fail once the grace is over", func(ctx context.Context) error {
		_, err := node.Trousseau.KMS.Status(ctx)
		if code := status.Code(err); code != codes.Unavailable {
			return fmt.Errorf("Status has code %s, want Unavailable", code)
		}
		return nil
	})
	over := since(began)
	c.Await(time.Minute, "kube-apiserver to notice", func(ctx context.Context) error {
		_, err := node.APIServer.Page(ctx, "/readyz/kms-providers")
		if err == nil {
			return errors.New("its /readyz/kms-providers is ok")
		}
		if !strings.Contains(err.Error(), "longer ago than the grace of 1m0s") {
			t.Fatalf("kube-apiserver does not report the expected reason: %v", err)
		}
		return nil
	})
	return fmt.Sprintf("Status Unavailable after %s, kube-apiserver not ready after %s, still reading and writing; ", over, since(began))
}

// pluginReady requests /readyz as kubelet does, and returns an error unless the
// plugin's check is ok. The check of etcd may fail on a busy machine: it times out
// after two seconds.
func pluginReady(ctx context.Context, api *testbed.APIServer) error {
	_, err := api.Page(ctx, "/readyz")
	if err != nil && strings.Contains(err.Error(), "[+]kms-providers ok") {
		return nil
	}
	return err
}

// degraded is a condition for [testbed.Bed.Await]: /readyz and the metric report
// degraded.
func degraded(trousseau *testbed.Trousseau) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := trousseau.Ready(ctx); err == nil {
			return errors.New(trousseau.Name + "'s /readyz is ok")
		}
		return trousseau.MetricIs(1, "trousseau_degraded")(ctx)
	}
}

// mustFail makes a call that needs Vault: if it succeeds, there is no outage.
func mustFail(t *testing.T, trousseau *testbed.Trousseau, sealed *kmsservice.DecryptRequest) {
	t.Helper()
	err := unseal(t.Context(), trousseau, sealed)
	if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
		t.Fatalf("decrypting without Vault: %v, want Unavailable or DeadlineExceeded", err)
	}
}

// mustBeAsBefore checks that an outage left nothing behind: everything works,
// including the agents, and nothing was restarted.
func mustBeAsBefore(t *testing.T, c *testbed.Cluster, secrets remembered, processes map[string]int) {
	t.Helper()
	token := c.Vault.NewToken()
	c.ConfigureToken(token)
	rotated := time.Now()
	for _, n := range c.Nodes {
		if err := n.Trousseau.RoundTrip(t.Context()); err != nil {
			t.Errorf("after the outage: %s: %v", n.Trousseau.Name, err)
		}
		if err := write(t.Context(), n.APIServer, "old-0"); err != nil {
			t.Errorf("after the outage: %v", err)
		}
		c.Await(3*time.Minute, "a new token to arrive after the outage", n.Trousseau.Uses(token))
	}
	c.Observe("a new token arrived %s after it was written; only Vault was restarted", since(rotated))
	c.MustBeSameProcesses(processes)
}

// write changes a Secret, so that it must be encrypted.
func write(ctx context.Context, api *testbed.APIServer, name string) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"written":%q}}}`, time.Now().Format(time.RFC3339Nano))
	_, err := api.Client.CoreV1().Secrets(metav1.NamespaceDefault).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("writing Secret %s through %s: %w", name, api.Name, err)
	}
	return nil
}

// since returns the time since t, rounded for the report.
func since(t time.Time) time.Duration { return time.Since(t).Round(100 * time.Millisecond) }

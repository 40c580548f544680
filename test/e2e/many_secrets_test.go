// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator with 1,000 Secrets restarts kube-apiserver, which must decrypt every
// seed again: one call to Vault if one run of the API server wrote them all. In the
// worst case each was written by another run; then the seeds that kube-apiserver asks for
// at once share calls (from 1.37 on ten, see ConcurrentWatchObjectDecode in
// apiserver/pkg/features). Lengthened:
// --probe-interval=10m instead of 30s, so that all counted calls to Vault are
// kube-apiserver's.
func TestManySecrets(t *testing.T) {
	const many = 1000
	bed := testbed.New(t, &report, "10 1,000 Secrets, restart")
	c := testbed.SetUp(bed, testbed.Options{TrousseauFlags: []string{"--probe-interval=10m"}})
	node := c.Nodes[0]

	written := func(i int) string { return fmt.Sprintf("written-%d", i) }
	before := vaultCalls(node.Trousseau)
	began := time.Now()
	each(t, many, func(ctx context.Context, i int) error {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: written(i)}, StringData: map[string]string{"value": "x"}}
		_, err := node.APIServer.Client.CoreV1().Secrets(metav1.NamespaceDefault).Create(ctx, secret, metav1.CreateOptions{})
		return err
	})
	bed.Observe("%d Secrets created in %s, with %s", many, time.Since(began).Round(100*time.Millisecond), vaultCalls(node.Trousseau).minus(before))
	if got := vaultCalls(node.Trousseau).minus(before); got != (vaultTraffic{}) {
		t.Errorf("creating Secrets took %s, want none: kube-apiserver has a seed", got)
	}
	// The minimum: decrypt one seed, and encrypt the new process's own.
	got := restartAndRead(t, c, node, "all under one seed", many, written)
	if want := (vaultTraffic{encrypt: 1, decrypt: 1}); got != want {
		t.Errorf("all under one seed: kube-apiserver's restart took %s, want %s", got, want)
	}

	left := func(i int) string { return fmt.Sprintf("left-%d", i) }
	c.Etcd.LeaveSecrets(node.Trousseau, "left-", many)
	got = restartAndRead(t, c, node, "each under its own seed", many, left)
	if got.encrypt != 1 || got.decrypt < many/20 || got.decrypt > many+1 {
		t.Errorf("each under its own seed: kube-apiserver's restart took %s, want 1 encrypt and at most %d decrypt calls", got, many+1)
	}
}

// restartAndRead restarts kube-apiserver, reads n Secrets one by one and returns the
// number of calls to Vault.
func restartAndRead(t *testing.T, c *testbed.Cluster, node *testbed.Node, what string, n int, name func(int) string) vaultTraffic {
	t.Helper()
	node.APIServer.Stop()
	// Only now: kube-apiserver reads everything in etcd for its watch cache.
	before := vaultCalls(node.Trousseau)
	began := time.Now()
	node.APIServer.Start()
	ready := node.APIServer.AwaitReady()
	atReady := vaultCalls(node.Trousseau).minus(before)
	each(t, n, func(ctx context.Context, i int) error {
		_, err := node.APIServer.Client.CoreV1().Secrets(metav1.NamespaceDefault).Get(ctx, name(i), metav1.GetOptions{})
		return err
	})
	took := time.Since(began)
	calls := vaultCalls(node.Trousseau).minus(before)
	c.Observe("%s: kube-apiserver ready %s after its start (%s), all %d read after %s (%s)", what,
		ready.Round(10*time.Millisecond), atReady, n, took.Round(10*time.Millisecond), calls)
	c.Count(n, 0)
	return calls
}

// each calls do for 0 to n-1, several at once.
func each(t *testing.T, n int, do func(context.Context, int) error) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// vaultTraffic counts successful calls to Vault: calls that timed out were retried.
type vaultTraffic struct{ encrypt, decrypt int }

func vaultCalls(p *testbed.Trousseau) vaultTraffic {
	count := func(operation string) int {
		return int(p.MustMetric("trousseau_vault_requests_total", "operation", operation, "code", "ok"))
	}
	return vaultTraffic{encrypt: count("encrypt"), decrypt: count("decrypt")}
}

func (v vaultTraffic) minus(w vaultTraffic) vaultTraffic {
	return vaultTraffic{encrypt: v.encrypt - w.encrypt, decrypt: v.decrypt - w.decrypt}
}

func (v vaultTraffic) String() string {
	return fmt.Sprintf("%d encrypt and %d decrypt calls to Vault", v.encrypt, v.decrypt)
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
	kmsservice "k8s.io/kms/pkg/service"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator runs Vault on three nodes and lists them all in config.yaml. The
// active node is killed, another one steps down, and all three are restarted in
// turn, while Secrets are used and Decrypt is called. No Decrypt may exceed
// kube-apiserver's timeout, and none may fail unless Vault was unusable for the
// whole request. Shortened: elections (performance_multiplier 1, which HashiCorp
// recommends for production), and the time until a new Vault node may vote.
func TestVaultHA(t *testing.T) {
	bed := testbed.New(t, &report, "5 Vault HA")
	c := setUpVaultHA(bed)
	node := c.Nodes[0]
	trousseau := node.Trousseau

	load := bed.StartLoad(testbed.LoadOptions{APIServers: []*testbed.APIServer{node.APIServer}})
	reads := startFirstReads(t, c, node, 3000)
	decrypts := startDecrypts(t, bed, trousseau)
	decrypts.awaitMore(100)
	// Calls without Trousseau show when Vault was usable: it can also lose its active
	// node because this machine is busy.
	direct := startCalls(t, bed, 1, 50*time.Millisecond, time.Second, func(ctx context.Context, _ int) error {
		return c.Vault.Serves(ctx, "transit/keys/trousseau-kms-vault")
	})
	pid := trousseau.PID()

	// Disturb returns when Vault lost its active node and when it had one again.
	phase := func(what string, disturb func() (from, to time.Time)) {
		t.Helper()
		began := time.Now()
		from, to := disturb()
		decrypts.awaitMore(100)
		reads.awaitMore(20)
		trousseau.AwaitReady()
		count, read := decrypts.count(began), reads.count(began)
		bed.Observe("%s, another one is active after %s: Decrypt: %s", what, to.Sub(from).Round(10*time.Millisecond), count)
		bed.Observe("  Secrets read for the first time: %s", read)
		bed.Count(count.Operations+read.Operations, count.Failures+read.Failures)
		mustBearWith(t, what, append(decrypts.since(began), reads.since(began)...), direct.since(began))
	}
	stepDown := func() (from, to time.Time) {
		active := c.Vault.AwaitActive()
		from = time.Now()
		active.StepDown()
		active.AwaitSuccessor()
		return from, time.Now()
	}
	// Kill first: a node that has stepped down does not take over for ten seconds
	// (manualStepDownSleepPeriod in Vault), which leaves one candidate.
	phase("the active node is killed", func() (from, to time.Time) {
		active := c.Vault.AwaitActive()
		from = time.Now()
		active.Kill()
		active.AwaitSuccessor()
		to = time.Now()
		startAgain(bed, active)
		return from, to
	})
	phase("the active node steps down", stepDown)
	phase("all are restarted in turn, the active one last, once it has stepped down", func() (from, to time.Time) {
		last := c.Vault.AwaitActive()
		for _, n := range c.Vault.Nodes {
			if n != last {
				n.Stop()
				startAgain(bed, n)
			}
		}
		from, to = stepDown()
		last.Stop()
		startAgain(bed, last)
		return from, to
	})
	phase("the active node is stopped without a step-down", func() (from, to time.Time) {
		active := c.Vault.AwaitActive()
		from = time.Now()
		active.Stop()
		active.AwaitSuccessor()
		to = time.Now()
		startAgain(bed, active)
		return from, to
	})

	tally := load.Stop()
	bed.Count(tally.Operations(), tally.Failures())
	bed.Observe("Secrets whose seed kube-apiserver had cached: %s", tally.Secrets)
	if tally.Failures() > 0 {
		t.Errorf("Secrets: %s; want no failures: kube-apiserver does not need Vault for these", tally.Secrets)
	}
	if trousseau.PID() != pid {
		t.Error("trousseau was restarted")
	}
	node.APIServer.AwaitReady()
}

// setUpVaultHA sets up a cluster whose config.yaml lists all Vault nodes.
func setUpVaultHA(bed *testbed.Bed) *testbed.Cluster {
	c := testbed.NewCluster(bed, testbed.Options{
		VaultNodes: 3,
		TemplateLines: []string{
			"addresses:",
			"- {{ .Data.data.vaultaddress2 }}",
			"- {{ .Data.data.vaultaddress3 }}",
		},
	})
	node := c.Nodes[0]
	node.Trousseau.Start()
	node.Encrypt()
	node.APIServer.Start()
	c.Vault.AwaitVoters()
	c.SetUpVault()
	addrs := c.Vault.Addresses()
	c.Configure("vaultaddress=https://"+addrs[0], "vaultaddress2=https://"+addrs[1], "vaultaddress3=https://"+addrs[2])
	node.SetUpAgent()
	node.Agent.Start()
	node.Trousseau.AwaitReady()
	node.APIServer.AwaitReady()
	return c
}

// startAgain starts a Vault node and waits until it can take over.
func startAgain(bed *testbed.Bed, n *testbed.VaultNode) {
	n.Start()
	n.Unseal()
	bed.Await(time.Minute, n.Name+" to follow", n.Follows)
}

// rpcDeadline is the timeout in the documented EncryptionConfiguration.
const rpcDeadline = 3 * time.Second

// startDecrypts calls Decrypt of Trousseau as kube-apiserver does, but about eighty
// times a second and with different seeds, because equal ones would share one call
// to Vault.
func startDecrypts(t *testing.T, bed *testbed.Bed, p *testbed.Trousseau) *calls {
	t.Helper()
	const seeds = 64
	wrapped := make([]*kmsservice.DecryptRequest, seeds)
	for i := range wrapped {
		sealed, err := p.KMS.Encrypt(t.Context(), string(uuid.NewUUID()), fmt.Appendf(nil, "%032d", i))
		if err != nil {
			t.Fatal(err)
		}
		wrapped[i] = &kmsservice.DecryptRequest{Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations}
	}
	return startCalls(t, bed, 4, 50*time.Millisecond, 2*rpcDeadline, func(ctx context.Context, serial int) error {
		got, err := p.KMS.Decrypt(ctx, string(uuid.NewUUID()), wrapped[serial%seeds])
		if err == nil && string(got) != fmt.Sprintf("%032d", serial%seeds) {
			err = errors.New("decrypted seed differs from the encrypted one")
		}
		return err
	})
}

// mustBearWith fails the test if a call exceeded kube-apiserver's timeout, or failed
// although it could have been answered: before its deadline, or although Vault
// answered direct calls for one uninterrupted second of it.
func mustBearWith(t *testing.T, when string, made, direct []call) {
	t.Helper()
	const late = rpcDeadline + 2*time.Second // margin for a busy machine
	for _, c := range made {
		served := longestRun(direct, c.began, c.ended)
		switch {
		case c.took() > late:
			t.Errorf("%s: a call took %s, want at most %s (%v)", when, c.took(), rpcDeadline, c.err)
			return
		case c.err != nil && c.took() < all:
			t.Errorf("%s: a call failed after %s, before its deadline: %v", when, c.took(), c.err)
			return
		case c.err != nil && served > enough:
			t.Errorf("%s: a call failed after %s, although Vault was usable for %s of that: %v", when, c.took(), served, c.err)
			return
		}
	}
}

const (
	// all is --request-timeout's 2.5s, less what Trousseau keeps for the last
	// attempt and what that may take.
	all    = 2 * time.Second
	enough = time.Second
)

// starved reports whether a call used all of its time and Vault answered direct
// calls for no uninterrupted second of it.
func (c call) starved(direct []call) bool {
	return c.took() >= all && longestRun(direct, c.began, c.ended) <= enough
}

// longestRun returns the longest period between from and to in which all calls were
// answered.
func longestRun(made []call, from, to time.Time) (longest time.Duration) {
	var first time.Time
	for _, c := range made {
		switch {
		case c.ended.Before(from) || c.began.After(to):
		case c.err != nil:
			first = time.Time{}
		case first.IsZero():
			first = c.began
		default:
			began := slices.MaxFunc([]time.Time{first, from}, time.Time.Compare)
			ended := slices.MinFunc([]time.Time{c.ended, to}, time.Time.Compare)
			longest = max(longest, ended.Sub(began))
		}
	}
	return longest
}

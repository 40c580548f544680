// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator rotates Trousseau's token every month: ten times here, each time
// revoking the old token as soon as the agent has rendered the new one. Then once in
// the wrong order. Shortened, except for the last time: the agent checks every two
// seconds instead of the documented thirty.
func TestMonthlyTokenRotation(t *testing.T) {
	bed := testbed.New(t, &report, "2 monthly token rotation")
	c := testbed.SetUp(bed, testbed.Options{})
	trousseau := c.Nodes[0].Trousseau
	token := c.Vault.NewToken()
	c.ConfigureToken(token)
	bed.Await(time.Minute, "a token whose accessor is known", trousseau.Uses(token))

	token = rotateUnderLoad(t, c, token)
	revokeTooEarly(t, c, token)
}

// rotateUnderLoad rotates ten times and returns the current token.
func rotateUnderLoad(t *testing.T, c *testbed.Cluster, old testbed.Token) testbed.Token {
	t.Helper()
	const rotations = 10
	node := c.Nodes[0]
	trousseau := node.Trousseau
	generation := trousseau.MustMetric("trousseau_generation")
	denied := trousseau.MustMetric("trousseau_vault_requests_total", "code", "denied")
	processes := c.PIDs()
	load := c.StartLoad(loadOn(node))
	load.AwaitMore(50)

	var slowest time.Duration
	for i := range rotations {
		token := c.Vault.NewToken()
		c.ConfigureToken(token)
		c.Await(30*time.Second, "the agent to render the new token", node.Rendered(token.ID))
		c.Vault.Revoke(old)
		slowest = max(slowest, c.Await(10*time.Second, "the new token to be in use", trousseau.Uses(token)))
		if c.Vault.Accepts(old) {
			t.Fatal("Vault accepts the revoked token; this test proves nothing")
		}
		load.AwaitMore(20)
		load.MustHaveNoFailures(fmt.Sprintf("rotation %d", i+1))
		old = token
	}

	tally := load.Stop()
	c.Count(tally.Operations(), tally.Failures())
	load.MustHaveNoFailures("after the last rotation")
	if got, want := trousseau.MustMetric("trousseau_generation"), generation+rotations; got != want {
		t.Errorf("generation %v after %d rotations, want %v", got, rotations, want)
	}
	if denied = trousseau.MustMetric("trousseau_vault_requests_total", "code", "denied") - denied; denied == 0 {
		t.Error("Vault denied no call: every token was revoked too late; this test proves nothing")
	}
	c.MustBeSameProcesses(processes)
	c.Observe("%d rotations, old token revoked when the new file was in place, new one in use at most %s later; no process restarted",
		rotations, slowest.Round(time.Millisecond))
	c.Observe("calls denied by Vault and retried by Trousseau: %.0f", denied)
	c.Observe("Secrets: %s", tally.Secrets)
	c.Observe("Encrypt and Decrypt: %s", tally.KMS)
	return old
}

// revokeTooEarly revokes a token when the new one is in the KV secret but the agent,
// with the documented interval, has not rendered it yet.
func revokeTooEarly(t *testing.T, c *testbed.Cluster, old testbed.Token) {
	t.Helper()
	node := c.Nodes[0]
	trousseau := node.Trousseau
	// An agent renders at its start, so the next time is far away when the token of
	// the first time is in use.
	node.Agent.Stop()
	node.SetUpAgentAsDocumented()
	first := c.Vault.NewToken()
	c.ConfigureToken(first)
	node.Agent.Start()
	c.Await(time.Minute, "the token that the agent renders first", trousseau.Uses(first))
	c.Vault.Revoke(old)
	processes := c.PIDs()
	load := c.StartLoad(loadOn(node))
	load.AwaitMore(20)

	second := c.Vault.NewToken()
	c.ConfigureToken(second)
	c.Vault.Revoke(first)
	revoked := time.Now()
	c.Await(10*time.Second, "/readyz to report the problem", trousseau.NotReady("permission denied"))
	told := time.Since(revoked)
	c.Await(time.Minute, "the new token to be in use", trousseau.Uses(second))
	healed := time.Since(revoked)
	ready := trousseau.AwaitReady()
	load.AwaitMore(20)

	tally := load.Stop()
	if tally.Secrets.Failures > 0 {
		t.Errorf("Secrets, with a revoked token for %s: %s", healed, tally.Secrets)
	}
	// Failures just before the recovery are recorded a little later.
	if !tally.KMS.LastFailure.Before(revoked.Add(healed + ready + 2*time.Second)) {
		t.Errorf("Encrypt or Decrypt failed %s after the token was revoked, although Trousseau had recovered after %s", tally.KMS.LastFailure.Sub(revoked), healed)
	}
	c.Count(tally.Secrets.Operations, tally.Secrets.Failures)
	c.MustBeSameProcesses(processes)
	c.Observe("revoked before the agent rendered the new one (the documented 30s): reported by /readyz after %s, recovered after %s; Secrets: %s",
		told.Round(time.Millisecond), healed.Round(100*time.Millisecond), tally.Secrets)
	c.Observe("Encrypt and Decrypt during that: %d of %d failed, the longest took %s", tally.KMS.Failures, tally.KMS.Operations, tally.KMS.Longest.Round(time.Millisecond))
}

// loadOn starts a load on everything that a node serves.
func loadOn(n *testbed.Node) testbed.LoadOptions {
	return testbed.LoadOptions{APIServers: []*testbed.APIServer{n.APIServer}, Plugins: []*testbed.Trousseau{n.Trousseau}}
}

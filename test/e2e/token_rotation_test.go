// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator rotates Trousseau's token every month: ten times here, each time
// revoking the old one the moment the agent has rendered the new one. Then once
// the wrong way round. Shortened: the agent looks every two seconds instead of
// the README's thirty, but for that last time.
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

// rotateUnderLoad rotates ten times and returns the token that is then in use.
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
			t.Fatal("Vault accepts the token that was revoked; this test proves nothing")
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
		t.Error("Vault has denied nothing meanwhile: every token was revoked too late to prove anything")
	}
	c.MustBeSameProcesses(processes)
	c.Observe("%d rotations, the old token revoked as the new file landed, the new one in use at most %s later; no process restarted",
		rotations, slowest.Round(time.Millisecond))
	c.Observe("calls that Vault denied meanwhile, and Trousseau made again: %.0f", denied)
	c.Observe("Secrets: %s", tally.Secrets)
	c.Observe("Encrypt and Decrypt: %s", tally.KMS)
	return old
}

// revokeTooEarly revokes a token when its successor is in the KV secret, but
// the agent, with the README's own interval, has not looked yet.
func revokeTooEarly(t *testing.T, c *testbed.Cluster, old testbed.Token) {
	t.Helper()
	node := c.Nodes[0]
	trousseau := node.Trousseau
	// An agent looks at its start, so the next look is far off when the token
	// of that first one is in use.
	node.Agent.Stop()
	node.SetUpAgentAsDocumented()
	first := c.Vault.NewToken()
	c.ConfigureToken(first)
	node.Agent.Start()
	c.Await(time.Minute, "the token of the agent's first look", trousseau.Uses(first))
	c.Vault.Revoke(old)
	processes := c.PIDs()
	load := c.StartLoad(loadOn(node))
	load.AwaitMore(20)

	second := c.Vault.NewToken()
	c.ConfigureToken(second)
	c.Vault.Revoke(first)
	revoked := time.Now()
	c.Await(10*time.Second, "the page to say what is wrong", trousseau.NotReady("permission denied"))
	told := time.Since(revoked)
	c.Await(time.Minute, "the new token to be in use", trousseau.Uses(second))
	healed := time.Since(revoked)
	ready := trousseau.AwaitReady()
	load.AwaitMore(20)

	tally := load.Stop()
	if tally.Secrets.Failures > 0 {
		t.Errorf("Secrets, with a dead token for %s: %s", healed, tally.Secrets)
	}
	// What failed just before is written down a little later.
	if !tally.KMS.LastFailure.Before(revoked.Add(healed + ready + 2*time.Second)) {
		t.Errorf("Encrypt or Decrypt failed %s after the token was revoked, although it had healed after %s", tally.KMS.LastFailure.Sub(revoked), healed)
	}
	c.Count(tally.Secrets.Operations, tally.Secrets.Failures)
	c.MustBeSameProcesses(processes)
	c.Observe("revoked before the agent looked (README's 30s): /readyz said so after %s, healed after %s; users of the API server meanwhile: %s",
		told.Round(time.Millisecond), healed.Round(100*time.Millisecond), tally.Secrets)
	c.Observe("Encrypt and Decrypt meanwhile: %d of %d failed, the longest took %s", tally.KMS.Failures, tally.KMS.Operations, tally.KMS.Longest.Round(time.Millisecond))
}

// loadOn is a load on all that a node serves.
func loadOn(n *testbed.Node) testbed.LoadOptions {
	return testbed.LoadOptions{APIServers: []*testbed.APIServer{n.APIServer}, Plugins: []*testbed.Trousseau{n.Trousseau}}
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// Trousseau gets its token in every supported way, all concurrently, under load and
// without an agent that renders config.yaml. The credentials are replaced while it
// runs. Then tokens live for seconds, so that they must be renewed, and replaced
// when they cannot be renewed any more. No request fails.
func TestOtherCredentials(t *testing.T) {
	bed := testbed.New(t, &report, "11 other credentials")
	c := testbed.NewCluster(bed, testbed.Options{})
	c.Nodes[0].APIServer.Start()
	c.SetUpVault()

	supplied := []*login{appRole(t, c), certificate(t, c), serviceAccount(t, c), platformJWT(t, c)}
	batch := batchTokens(t, c)
	agent := startAgent(c)
	sink, proxy := newLogin(t, c, "agent's sink"), newLogin(t, c, "agent's API proxy")
	sink.configure("tokenFile: " + agent.Sink)
	proxy.configureAt(agent.URL, "apiProxy: true")
	all := slices.Concat(supplied, []*login{batch, sink, proxy})
	for _, l := range all {
		l.trousseau.Start()
	}
	for _, l := range all {
		l.serve()
	}
	processes := c.PIDs()
	// Calls without Trousseau show when Vault was usable at all.
	direct := startCalls(t, bed, 1, 50*time.Millisecond, time.Second, func(ctx context.Context, _ int) error {
		return c.Vault.Serves(ctx, "transit/keys/"+testbed.Key)
	})

	replace(supplied)
	for _, l := range supplied {
		l.role(shortLived...)
	}
	replace(supplied)
	boundSeeds(t, c)
	fewUses(t, c)
	for _, l := range supplied {
		l.mustBeKeptAlive()
	}
	mustOutlive(batch)
	token := mustFollow(c, agent, sink)

	c.MustBeSameProcesses(processes)
	sink.end(direct)
	if !c.Vault.Accepts(token) {
		t.Error("trousseau revoked the token in the sink at its end, but the token belongs to the agent")
	}
	for _, l := range slices.Concat(supplied, []*login{batch, proxy}) {
		l.end(direct)
	}
}

// replace replaces each credential as its supplier does, and waits until only tokens
// from the new ones are live.
func replace(logins []*login) {
	for _, l := range logins {
		l.replace()
	}
	for _, l := range logins {
		l.mustHaveReplaced()
	}
}

// mustOutlive waits until four batch tokens have expired; Vault neither renews nor
// lists them.
func mustOutlive(l *login) {
	l.t.Helper()
	l.mustLogInAgain(3)
	if renewals := l.asked("renew_self"); renewals != 0 {
		l.t.Errorf("%s: got %v renewals, want none for batch tokens", l.name, renewals)
	}
}

// mustFollow waits until an agent has got another token, at least its third, and the
// trousseau that reads its sink uses it. It returns the token, most of whose
// lifetime remains.
func mustFollow(c *testbed.Cluster, agent *testbed.Agent, sink *login) testbed.Token {
	sink.t.Helper()
	count := func(what string) int { return strings.Count(agent.Log(), what) }
	want := max(3, count("authentication successful")+1)
	c.Await(time.Minute, "another login of the agent", func(context.Context) error {
		if n := count("authentication successful"); n < want {
			return fmt.Errorf("it has logged in %d times, want %d", n, want)
		}
		return nil
	})
	tokens, renewals := count("authentication successful"), count("renewed auth token")
	c.Await(10*time.Second, "the token in the sink to be in use", sink.generation(tokens))
	c.Observe("the agent has logged in %d times and renewed %d times; its sink and its API proxy each serve a trousseau", tokens, renewals)
	token, err := os.ReadFile(agent.Sink)
	if err != nil {
		sink.t.Fatal(err)
	}
	return testbed.Token{ID: strings.TrimSpace(string(token))}
}

// fewUses supplies a token with a limited number of uses.
func fewUses(t *testing.T, c *testbed.Cluster) {
	t.Helper()
	token := func(flags ...string) string {
		return "token: " + c.Vault.CLI(append([]string{"token", "create", "-orphan", "-policy=trousseau", "-field=token"}, flags...)...)
	}
	l := newLogin(t, c, "few uses")
	l.configure(token("-use-limit=50"))
	l.trousseau.Start()
	const reason = "the token is good for a limited number of requests"
	c.Await(30*time.Second, "the token to be refused", l.trousseau.NotReady(reason))
	c.Await(10*time.Second, "its class in the metrics", l.trousseau.MetricIs(1, "trousseau_config_last_reload_error_info", "class", "refused_token"))
	if _, err := l.trousseau.KMS.Status(t.Context()); err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("Status with a token of few uses: %v, want the reason", err)
	}
	l.configure(token())
	l.trousseau.AwaitReady()
	l.trousseau.Stop()
	c.Observe("a token with num_uses: refused_token, also in Status; a token without num_uses fixes it")
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator upgrades Trousseau under load. First in place, three times: a new
// process takes over the socket, and the old one finishes its work and is then
// terminated; no request may fail. Then with stop and start: requests for which
// kube-apiserver has the seed must not fail, and others wait.
func TestUpgradeInPlace(t *testing.T) {
	const takeovers = 3
	bed := testbed.New(t, &report, "9 upgrade in place")
	c := testbed.SetUp(bed, testbed.Options{})
	node := c.Nodes[0]
	running := node.Trousseau
	keyID := running.KeyID()

	load := bed.StartLoad(testbed.LoadOptions{
		APIServers: []*testbed.APIServer{node.APIServer}, Plugins: []*testbed.Trousseau{running},
	})
	reads := startFirstReads(t, c, node, 2000)
	settle := func() { t.Helper(); load.AwaitMore(50); reads.awaitMore(20) }
	settle()

	var slowest time.Duration
	for i := range takeovers {
		next := node.NewTrousseau(fmt.Sprintf("trousseau-next%d", i+1), "--takeover")
		began := time.Now()
		next.Start()
		bed.Await(10*time.Second, "the old process to hand over", running.Logged(0, "another process has taken the socket over"))
		slowest = max(slowest, time.Since(began))
		next.AwaitReady()
		// The ops endpoints close after the log message.
		bed.Await(10*time.Second, "the old process's ops endpoints to be gone", func(ctx context.Context) error {
			if running.Ready(ctx) == nil {
				return errors.New("its /readyz answers as if it still served")
			}
			return nil
		})
		settle()
		running.Stop()
		running = next
		settle()
		load.MustHaveNoFailures(fmt.Sprintf("takeover %d", i+1))
	}
	tally, read := load.Tally(), reads.count(time.Time{})
	bed.Count(tally.Operations()+read.Operations, tally.Failures()+read.Failures)
	bed.Observe("%d takeovers, each within %s of the new process's start", takeovers, slowest.Round(time.Millisecond))
	bed.Observe("Secrets written and read: %s", tally.Secrets)
	bed.Observe("Secrets read for the first time: %s", read)
	bed.Observe("Encrypt and Decrypt: %s", tally.KMS)
	if read.Failures > 0 {
		t.Errorf("Secrets read for the first time: %s; want no failures", read)
	}
	if got := running.KeyID(); got != keyID {
		t.Errorf("key_id is now %q, want it unchanged: %q", got, keyID)
	}
	load.Stop()

	plainRestart(t, c, node, running, reads)
}

// plainRestart stops and starts Trousseau, as systemctl restart does.
func plainRestart(t *testing.T, c *testbed.Cluster, node *testbed.Node, p *testbed.Trousseau, reads *calls) {
	t.Helper()
	load := c.StartLoad(testbed.LoadOptions{
		APIServers: []*testbed.APIServer{node.APIServer}, Plugins: []*testbed.Trousseau{p},
	})
	load.AwaitMore(50)
	from := time.Now()
	stopping := p.Stop()
	p.Start()
	p.AwaitReady()
	away := time.Since(from)
	load.AwaitMore(50)
	reads.awaitMore(20)
	healed := time.Now()
	load.AwaitMore(50)
	reads.awaitMore(20)
	reads.stop()
	tally, read := load.Stop(), reads.count(from)
	c.Observe("stop and start: %s until ready, including %s to stop", away.Round(time.Millisecond), stopping.Round(time.Millisecond))
	c.Observe("stop and start: Secrets written and read: %s", tally.Secrets)
	c.Observe("stop and start: Secrets read for the first time: %s", read)
	c.Observe("stop and start: Encrypt and Decrypt: %s", tally.KMS)
	c.Count(tally.Operations()+read.Operations, tally.Failures()+read.Failures)
	if tally.Secrets.Failures > 0 {
		t.Errorf("Secrets: %s; want no failures: kube-apiserver has their seed", tally.Secrets)
	}
	if tally.KMS.LastFailure.After(healed) || read.LastFailure.After(healed) {
		t.Errorf("requests kept failing: Encrypt and Decrypt: %s; Secrets: %s", tally.KMS, read)
	}
	c.Await(30*time.Second, "kube-apiserver to find its plugin healthy", func(ctx context.Context) error {
		_, err := node.APIServer.Page(ctx, "/readyz/kms-providers")
		return err
	})
}

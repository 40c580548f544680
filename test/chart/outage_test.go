// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator upgrades the release while Vault is down: with the default strategy, and
// with one that stops the old pod first. In both, the rollout stops at one node until
// Vault is back, and the other nodes keep their grace. With the default that node keeps
// it too, because its old process serves on.
//
// The nodes share a network, so two of three processes cannot get the ops port. That
// neither restarts them nor keeps their pods from being ready.
func TestUpgradeDuringOutage(t *testing.T) {
	f := newFleet(t, "12 upgrade while Vault is down", 3)
	f.Vault.CLI("write", "auth/kubernetes/role/trousseau", "bound_service_account_names=trousseau",
		"bound_service_account_namespaces="+namespace, "token_policies=trousseau", "token_period=24h")
	f.helmDo("install", "{}")
	f.awaitRollout(release, 2*time.Minute)
	f.encrypt()
	load := f.StartLoad(testbed.LoadOptions{APIServers: []*testbed.APIServer{f.node.APIServer}})
	load.AwaitMore(20)

	f.upgradeDuringOutage("maxSurge 1", "log: {level: debug}\n", 0)
	load.MustHaveNoFailures("upgrade with maxSurge 1")
	tally := load.Stop()
	f.Count(tally.Operations(), tally.Failures())
	f.Observe("Secrets during outage and upgrade: %s", tally.Secrets)
	f.upgradeDuringOutage("maxUnavailable 1", "updateStrategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}\n", 1)
	for _, n := range f.nodes {
		for _, e := range n.Events() {
			if e.What == kubelet.Restarting {
				t.Errorf("%s: %s is restarted: %v", n.Name, e.Pod, e.Why)
			}
		}
	}
}

// outageLasts is much longer than the controller needs for all nodes when nothing
// stops it, and shorter than the grace.
const outageLasts = 25 * time.Second

// upgradeDuringOutage takes Vault away, upgrades, and brings Vault back. Meanwhile at
// most this many nodes may be without a good Status, and at most one may be touched.
func (f *fleet) upgradeDuringOutage(strategy, values string, without int) {
	f.t.Helper()
	var at []*testbed.Trousseau
	for _, n := range f.nodes {
		at = append(at, f.attachTo(n, running(n, "trousseau")[0], ""))
	}
	// Nodes without a good Status, at most and now.
	worst := 0
	sample := func(ctx context.Context) (bad int) {
		for _, trousseau := range at {
			if status, err := trousseau.KMS.Status(ctx); err != nil || status.Healthz != "ok" {
				bad++
			}
		}
		worst = max(worst, bad)
		return bad
	}
	f.Proxy.Refuse()
	began := time.Now()
	f.helmDo("upgrade", values)
	f.Await(2*outageLasts, "the outage to last", func(ctx context.Context) error {
		sample(ctx)
		if left := outageLasts - time.Since(began); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	started, ended := f.touched(began)
	if len(started) != 1 || len(ended) != without || worst != without {
		f.t.Errorf("%s: pods were started on %v and ended on %v, at most %d nodes had no good Status; want 1, %d and %d",
			strategy, started, ended, worst, without, without)
	}
	f.Observe("%s: during %s without Vault, pods of 3 nodes started: %d, ended: %d; nodes without a good Status: %d",
		strategy, time.Since(began).Round(time.Second), len(started), len(ended), worst)

	f.Proxy.Pass()
	f.Await(2*time.Minute, "the rollout", func(ctx context.Context) error {
		if bad := sample(ctx); bad > max(without, 1) {
			return fmt.Errorf("%d nodes are without a good Status", bad)
		}
		return f.rolledOut(f.daemonSet())
	})
	if _, ended := f.touched(began); len(ended) != len(f.nodes) {
		f.t.Errorf("%s: the rollout has ended pods on %v, want all nodes", strategy, ended)
	}
	if worst > without {
		f.t.Errorf("%s: %d nodes at once had no good Status during the rollout, want at most %d", strategy, worst, without)
	}
	f.Observe("%s: rolled out %s after Vault's return; nodes without a good Status at the same time: %d",
		strategy, (time.Since(began) - outageLasts).Round(time.Second), worst)
}

// touched returns the nodes on which pods have been started and ended since then.
func (f *fleet) touched(since time.Time) (started, ended []string) {
	for _, n := range f.nodes {
		for _, e := range n.Events() {
			switch {
			case e.At.Before(since):
			case e.What == kubelet.Started && !slices.Contains(started, n.Name):
				started = append(started, n.Name)
			case e.What == kubelet.Terminating && !slices.Contains(ended, n.Name):
				ended = append(ended, n.Name)
			}
		}
	}
	return started, ended
}

// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// A DaemonSet with a Vault Agent as a sidecar, installed by Helm. kube-apiserver uses
// it under load while tokens and the key are rotated, and while the release is
// upgraded, with both DaemonSet update strategies.
func TestAgent(t *testing.T) {
	s := newStage(t, "4 DaemonSet with a Vault Agent")
	s.helmDo("install", agentValues)
	pod := s.schedule("trousseau-first")
	trousseau := s.attach(pod)
	s.node.ConfigFile = filepath.Join(pod.Volume("config"), "config.yaml")
	s.mustBeHealthy(pod, trousseau)
	s.mustBeSound(pod, "")

	api := s.node.APIServer
	api.Stop()
	s.node.Trousseau = trousseau
	s.node.Encrypt()
	api.Start()
	api.AwaitReady()
	s.useUnderLoad(trousseau, func(load *testbed.Load) {
		s.rotateTokens(trousseau, load)
		s.rotateKey(trousseau, load)
		pod = s.surge(pod, load)
	})
	pod = s.replace(pod)
	s.mustEnd(pod)
}

// agentValues sets more than required, to test these values.
const agentValues = `
config: {source: agent}
vault:
  tlsServerName: localhost
  transitPath: transit
  keys: [trousseau-kms-vault]
  associatedData: "cluster 1: \"quoted\" #"
`

// surge upgrades the release with the default strategy, which starts the new pod
// before it ends the old one, and does the work of the DaemonSet's controller. Both
// pods have the same port, and each its own socket for the probes.
func (s *stage) surge(old *kubelet.Pod, load *testbed.Load) *kubelet.Pod {
	s.t.Helper()
	s.helmDo("upgrade", agentValues+"log: {level: debug}\n")
	if by := s.daemonSet().Spec.UpdateStrategy.RollingUpdate; by.MaxSurge.String() != "1" || by.MaxUnavailable.String() != "0" {
		s.t.Errorf("the default strategy has maxSurge %s and maxUnavailable %s, want 1 and 0", by.MaxSurge, by.MaxUnavailable)
	}
	next := s.schedule("trousseau-surge")
	trousseau := s.attach(next)
	minReady := time.Duration(s.daemonSet().Spec.MinReadySeconds) * time.Second
	took := s.Await(minReady+time.Minute, "the new pod to be available", next.Available(minReady))
	load.AwaitMore(20)
	s.mustEnd(old)
	load.AwaitMore(20)
	load.MustHaveNoFailures("upgrade with maxSurge 1")
	s.Observe("upgraded with maxSurge 1: the new pod was available %s after its start, then the old one ended: %s", took.Round(time.Second), load.Tally().KMS)
	s.mustBeHealthy(next, trousseau)
	return next
}

// replace upgrades the release to a strategy that ends the old pod before it starts
// the new one. In between, kube-apiserver uses its cached seed.
func (s *stage) replace(old *kubelet.Pod) *kubelet.Pod {
	s.t.Helper()
	s.helmDo("upgrade", agentValues+"updateStrategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}\n")
	load := s.StartLoad(testbed.LoadOptions{APIServers: []*testbed.APIServer{s.node.APIServer}})
	load.AwaitMore(20)
	began := time.Now()
	s.mustEnd(old)
	next := s.schedule("trousseau-replaced")
	trousseau := s.attach(next)
	trousseau.AwaitReady()
	away := time.Since(began)
	load.AwaitMore(20)
	tally := load.Stop()
	s.Count(tally.Operations(), tally.Failures())
	load.MustHaveNoFailures("upgrade with maxUnavailable 1")
	s.Observe("upgraded with maxUnavailable 1: no pod served for %s; Secrets: %s", away.Round(time.Millisecond), tally.Secrets)
	s.mustBeHealthy(next, trousseau)
	return next
}

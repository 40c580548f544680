// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// The power fails on all nodes of a cluster with an encrypted Secret. The DaemonSet's
// pods are still bound to their nodes, so the kubelets start them as soon as an API
// server answers.
func TestColdStart(t *testing.T) {
	f := newFleet(t, "10 cold start of a DaemonSet", 2, "--leader-elect=false")
	f.helmDo("install", "{}")
	f.awaitRollout(release, 3*time.Minute)
	f.encrypt()
	f.node.APIServer.Kubectl("create", "secret", "generic", "hello", "--from-literal=who=world")

	f.powerCut()
	f.Etcd.Start()
	f.node.APIServer.Start()
	f.controllers.Start()
	f.powerOn()
	took := map[*kubelet.Node]*testbed.Trousseau{}
	for _, n := range f.nodes {
		var pod *kubelet.Pod
		f.Await(3*time.Minute, n.Name+"'s pod to be ready", func(ctx context.Context) error {
			pods := running(n, "trousseau")
			if len(pods) != 1 {
				return errors.New("it has not started")
			}
			pod = pods[0]
			return pod.Ready(ctx)
		})
		took[n] = f.attachTo(n, pod, "")
		if err := took[n].RoundTrip(t.Context()); err != nil {
			t.Error(err)
		}
	}
	f.node.APIServer.AwaitReady()
	if got := f.node.APIServer.Kubectl("get", "secret", "hello", "-o", "jsonpath={.data.who}"); got != "d29ybGQ=" {
		t.Errorf("the Secret reads %q", got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
)

// An operator runs `helm test`. It fails if no node takes the pod, as none takes the
// DaemonSet's; it succeeds if Trousseau is ready on the node that does, and it fails
// with the reason while Vault is away. The pod has no rights, and no controller adopts
// it.
func TestHelmTest(t *testing.T) {
	s := newStage(t, "14 helm test")
	s.Vault.CLI("write", "auth/kubernetes/role/trousseau", "bound_service_account_names=trousseau",
		"bound_service_account_namespaces="+namespace, "token_policies=trousseau", "token_ttl=1h")
	s.helmDo("install", "{}")
	// As the DaemonSet's controller reports that no node is meant.
	s.node.APIServer.Kubectl("patch", "daemonset", release, "--namespace="+namespace, "--subresource=status", "--patch="+`{"status":{"observedGeneration":1}}`)
	if out := s.node.APIServer.Kubectl("rollout", "status", "daemonset/"+release, "--namespace="+namespace, "--timeout=10s"); !strings.Contains(out, "successfully rolled out") {
		t.Errorf("rollout status notices that there is no pod, so the notes need not: %s", out)
	}
	if err := s.helmTest(s.helm, 3*time.Second, nil); err == nil {
		t.Error("helm test succeeds although its pod is not scheduled")
	}
	pod := s.schedule("trousseau-tested")
	trousseau := s.attach(pod)
	s.mustBeHealthy(pod, trousseau)

	for i, version := range helmVersions {
		name := fmt.Sprintf("healthy%d", i)
		if err := s.helmTest(newHelm(t, version, s.node.APIServer.Kubeconfig()), time.Minute, func() *kubelet.Pod { return s.runTest(name) }); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
	s.Proxy.Refuse()
	s.Await(30*time.Second, "Trousseau to notice", trousseau.NotReady("[-]kek"))
	var tested *kubelet.Pod
	err := s.helmTest(s.helm, time.Minute, func() *kubelet.Pod { tested = s.runTest("outage"); return tested })
	if err == nil || !strings.Contains(tested.Container("test").Log(), "[-]kek") {
		t.Errorf("helm test during an outage: %v; the pod's log:\n%s", err, tested.Container("test").Log())
	}
	s.Observe("fails without a node and while Vault is away, succeeds otherwise")
	s.Proxy.Pass()
	s.mustEnd(pod)
}

// helmTest runs `helm test` while run, if not nil, does the scheduler's and the
// kubelet's work. Logs are not available through this API server.
func (s *stage) helmTest(h helm, within time.Duration, run func() *kubelet.Pod) error {
	s.t.Helper()
	// Helm would delete it itself, but then run could see it.
	s.node.APIServer.Kubectl("delete", "pod", release+"-test", "--namespace="+namespace, "--ignore-not-found", "--now")
	done := make(chan error, 1)
	go func() {
		_, err := h.try("test", release, "--namespace="+namespace, "--timeout="+within.String())
		done <- err
	}()
	if run != nil {
		run()
	}
	return <-done
}

// runTest runs the pod of `helm test` under a name of its own and reports how it ended.
func (s *stage) runTest(name string) *kubelet.Pod {
	s.t.Helper()
	pods := s.node.APIServer.Client.CoreV1().Pods(namespace)
	var pod *corev1.Pod
	s.Await(30*time.Second, "the pod of helm test", func(ctx context.Context) (err error) {
		pod, err = pods.Get(ctx, release+"-test", metav1.GetOptions{})
		if err == nil && pod.Status.Phase != corev1.PodPending {
			err = fmt.Errorf("its phase is %s", pod.Status.Phase)
		}
		return err
	})
	set := s.daemonSet()
	want := set.Spec.Template.Spec
	if got := pod.Spec; !reflect.DeepEqual(got.Affinity, want.Affinity) || !reflect.DeepEqual(got.NodeSelector, want.NodeSelector) || len(got.Tolerations) < len(want.Tolerations) {
		s.t.Errorf("the pod is for other nodes than the DaemonSet's: %+v, want %+v", got, want)
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil || selector.Matches(labels.Set(pod.Labels)) {
		s.t.Errorf("%v: the DaemonSet's controller would adopt a pod with the labels %v", err, pod.Labels)
	}
	for _, v := range pod.Spec.Volumes {
		s.t.Errorf("the pod has a volume, %s", v.Name)
	}
	mine := pod.DeepCopy()
	mine.Name, mine.Spec.NodeName = name, node
	running := s.run(mine)
	s.Await(30*time.Second, "the container to end", func(context.Context) error {
		if running.Container("test").Running() {
			return errors.New("it runs")
		}
		return nil
	})
	pod.Status.Phase = corev1.PodSucceeded
	if running.Container("test").ExitCode() != 0 {
		pod.Status.Phase = corev1.PodFailed
	}
	if _, err := pods.UpdateStatus(s.t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	return running
}

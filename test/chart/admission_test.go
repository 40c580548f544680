// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

const node = "node1"

// kube-apiserver accepts what each set of values renders, first as a dry run and
// then for real, without a warning, in a namespace labelled privileged. No
// controller creates pods for a DaemonSet, so the test creates one from its
// template. A static pod is reported as a kubelet does.
func TestStoredByAPIServer(t *testing.T) {
	h := newHelm(t, "helm4", "")
	bed := testbed.New(t, &report, "1 stored by kube-apiserver")
	api := startAPIServer(t, bed)
	owner := registerNode(t, api)
	counted := 0
	for _, s := range sets(t) {
		space := "set-" + s.name
		makeNamespace(api, space, "privileged")
		text := h.template(space, s.flag())
		rendered := parse(t, text)
		counted += len(rendered)
		pod := rendered.pod(t)
		if s.static() || s.installer() {
			if err := reportMirror(t, bed, api, pod, owner); err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
			if s.static() {
				continue
			}
			pod = rendered.created(t, installer)
			pod.Spec.ServiceAccountName = "default"
		}
		for _, mode := range []string{"--dry-run=server", "--dry-run=none"} {
			if _, err := api.TryKubectl(t.Context(), text, "apply", mode, "--validate=strict", "--warnings-as-errors", "-f", "-"); err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
		}
		if account := pod.Spec.ServiceAccountName; rendered.find("ServiceAccount", account) == nil {
			api.Kubectl("create", "serviceaccount", account, "--namespace="+space)
		}
		if err := createPod(t.Context(), api, space, pod); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	bed.Observe("%d objects of %d sets of values and their pods are stored without a warning, in a dry run and for real", counted, len(sets(t)))

	// Otherwise the test proves nothing about static pods.
	foreign := parse(t, h.template("set-agent", "--values=testdata/values/agent.yaml")).pod(t)
	foreign.Namespace = "set-agent"
	if err := reportMirror(t, bed, api, foreign, owner); err == nil || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("reporting a static pod that refers to objects: %v, want it forbidden", err)
	}
}

// An operator installs into a namespace whose Pod Security level is too strict. The
// DaemonSet is stored with a warning that names the reason, and its pods are
// refused.
func TestPodSecurity(t *testing.T) {
	h := newHelm(t, "helm4", "")
	bed := testbed.New(t, &report, "2 Pod Security")
	api := startAPIServer(t, bed)
	const network = "host namespaces (hostNetwork=true), "
	for level, want := range map[string]string{
		"baseline": network + `hostPath volumes (volume "socket")`,
		"restricted": network + `restricted volume types (volume "socket" uses restricted volume type "hostPath"), ` +
			`runAsNonRoot != true (pod or containers "vault-agent", "trousseau" must set securityContext.runAsNonRoot=true), ` +
			`runAsUser=0 (pod must not set runAsUser=0)`,
	} {
		makeNamespace(api, level, level)
		text := h.template(level, "--values=testdata/values/agent.yaml")
		_, warned := api.TryKubectl(t.Context(), text, "apply", "--warnings-as-errors", "-f", "-")
		api.Kubectl("get", "daemonset", release, "--namespace="+level)
		refused := createPod(t.Context(), api, level, parse(t, text).pod(t))
		for _, err := range []error{warned, refused} {
			if err == nil || !strings.Contains(err.Error(), `PodSecurity "`+level+`:latest": `+want) {
				t.Errorf("in a namespace labelled %s: %v, want a violation: %s", level, err, want)
			}
		}
		bed.Observe("labelled %s: the DaemonSet is stored with a warning, its pods are refused: %s", level, want)
	}
}

func makeNamespace(api *testbed.APIServer, name, level string) {
	// Create it with its labels: admission caches existing namespaces.
	api.KubectlWithInput(fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n  labels:\n"+
		"    pod-security.kubernetes.io/enforce: %[2]s\n    pod-security.kubernetes.io/warn: %[2]s\n", name, level), "create", "-f", "-")
}

// createPod does what the DaemonSet's controller would do.
func createPod(ctx context.Context, api *testbed.APIServer, space string, pod *corev1.Pod) error {
	pod.Name, pod.Namespace, pod.Spec.NodeName = release+"-x2k4z", space, node
	_, err := api.Client.CoreV1().Pods(space).Create(ctx, pod, metav1.CreateOptions{})
	return err
}

// registerNode creates a node and returns an owner reference to it.
func registerNode(t *testing.T, api *testbed.APIServer) metav1.OwnerReference {
	t.Helper()
	n, err := api.Client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	return metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID, Controller: &yes}
}

// reportMirror reports a static pod to the API server as its kubelet, with a
// kubelet's rights (pkg/kubelet/pod/mirror_client.go).
func reportMirror(t *testing.T, bed *testbed.Bed, api *testbed.APIServer, pod *corev1.Pod, owner metav1.OwnerReference) error {
	t.Helper()
	pod = pod.DeepCopy()
	pod.APIVersion, pod.Kind = "v1", "Pod"
	pod.Name, pod.Spec.NodeName = release+"-"+node, node
	pod.OwnerReferences = []metav1.OwnerReference{owner}
	if pod.Annotations == nil {
		pod.Annotations = make(map[string]string)
	}
	pod.Annotations["kubernetes.io/config.source"] = "file"
	pod.Annotations["kubernetes.io/config.hash"] = "0123456789abcdef"
	pod.Annotations["kubernetes.io/config.mirror"] = "0123456789abcdef"
	text, err := json.Marshal(pod)
	if err != nil {
		return err
	}
	create := func(ctx context.Context) error {
		_, err := api.TryKubectl(ctx, string(text), "create", "--validate=strict", "--warnings-as-errors", "-f", "-",
			"--as=system:node:"+node, "--as-group=system:nodes", "--as-group=system:masters")
		return err
	}
	// NodeRestriction may not know the node yet.
	bed.Await(time.Minute, "kube-apiserver to know the node", func(ctx context.Context) error {
		if err = create(ctx); err != nil && strings.Contains(err.Error(), `node "`+node+`" not found`) {
			return err
		}
		return nil
	})
	return err
}

// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// stage is a cluster with a Vault that is set up as the documentation describes, and a node
// with a kubelet. The chart adds the rest.
type stage struct {
	*testbed.Cluster
	t       *testing.T
	node    *testbed.Node
	helm    helm
	kubelet *kubelet.Kubelet
	port    int    // of the ops endpoints
	values  string // the flag for helm
}

// newStage sets up Vault as the documentation describes.
func newStage(t *testing.T, title string) *stage {
	t.Helper()
	s := newBareStage(t, title)
	s.SetUpVault()
	// The chart creates these itself.
	s.node.APIServer.Kubectl("delete", "-f", filepath.Join(s.Dir, "setup", "service-account.yaml"))
	return s
}

// newBareStage leaves Vault empty.
func newBareStage(t *testing.T, title string) *stage {
	t.Helper()
	s := prepareStage(t, title)
	s.node.APIServer.Start()
	return s
}

// prepareStage is newBareStage that does not start the API server. It skips the test
// if containers are not permitted.
func prepareStage(t *testing.T, title string) *stage {
	t.Helper()
	return prepareStageWith(t, title, func(*testbed.Bed) testbed.Options { return testbed.Options{} })
}

func prepareStageWith(t *testing.T, title string, options func(*testbed.Bed) testbed.Options) *stage {
	t.Helper()
	newHelm(t, "helm4", "")
	bed := testbed.New(t, &report, title)
	if err := kubelet.Usable(bed.Dir); err != nil {
		t.Skipf("containers cannot be created: %v", err)
	}
	c := testbed.NewCluster(bed, options(bed))
	s := &stage{Cluster: c, t: t, node: c.Nodes[0], port: bed.FreePort()}
	s.helm = newHelm(t, "helm4", s.node.APIServer.Kubeconfig())
	s.values = "--values=" + s.Write("values.yaml", fmt.Sprintf(values, c.Proxy.Addr, s.node.Dir, s.port))
	s.kubelet = kubelet.New(kubelet.Options{Bed: bed, API: s.node.APIServer.Client, Service: strings.TrimPrefix(s.node.APIServer.URL, "https://"), Images: map[string]kubelet.Image{
		"registry.example/trousseau": {Binary: bed.Binary, Path: "/trousseau", Entrypoint: []string{"/trousseau"},
			Others: map[string]string{"/trousseauctl": trousseauctl(t)}},
		"docker.io/hashicorp/vault": {Binary: bed.Tool("vault"), Path: "/bin/vault"},
	}})
	return s
}

// localImage is the image with the binaries under test.
const localImage = `
image:
  repository: registry.example/trousseau`

// values are the values required on this machine. Shortened: Trousseau checks for a
// new key version every second instead of every thirty, and the agent renders every
// two seconds.
const values = localImage + `
vault:
  address: https://%s
config:
  agent:
    renderInterval: 2s
socket:
  directory: %s/run
  # The user that the test looks like from inside.
  allowUIDs: [0, 65532]
ops:
  port: %d
extraArgs: [--probe-interval=1s]
`

// with returns the arguments for helm with additional values, and with Vault's CA
// unless the values name an object that holds it.
func (s *stage) with(values string) []string {
	s.t.Helper()
	args := []string{s.values, write(s.t, values)}
	if !strings.Contains(values, "caConfigMap") {
		args = append(args, "--set-file=vault.caCert="+s.CAFile())
	}
	return args
}

// helmDo installs or upgrades the release.
func (s *stage) helmDo(what, values string) {
	s.t.Helper()
	s.helm.run(append([]string{what, release, chartDir, "--namespace=" + namespace}, s.with(values)...)...)
}

// schedule creates a pod of the DaemonSet, as its controller would, and runs it.
func (s *stage) schedule(name string) *kubelet.Pod {
	s.t.Helper()
	set := s.daemonSet()
	template := set.Spec.Template.DeepCopy()
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Name, pod.Namespace, pod.Spec.NodeName = name, namespace, node
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))}
	pod, err := s.node.APIServer.Client.CoreV1().Pods(namespace).Create(s.t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.run(pod)
}

func (s *stage) daemonSet() *appsv1.DaemonSet {
	s.t.Helper()
	set, err := s.node.APIServer.Client.AppsV1().DaemonSets(namespace).Get(s.t.Context(), release, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return set
}

// scheduleStatic writes a manifest to a node's directory and runs the pod in it.
func (s *stage) scheduleStatic(node, values string) *kubelet.Pod {
	s.t.Helper()
	file := s.Write(filepath.Join("manifests", node, "trousseau.yaml"), s.helm.template(namespace, s.with(values)...))
	pod, err := kubelet.ReadManifest(file, node)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.run(pod)
}

func (s *stage) run(pod *corev1.Pod) *kubelet.Pod {
	s.t.Helper()
	running, err := s.kubelet.Run(s.t.Context(), pod)
	if err != nil {
		s.t.Fatal(err)
	}
	return running
}

// attach returns the trousseau in a pod, as the API server and Prometheus reach it.
func (s *stage) attach(pod *kubelet.Pod) *testbed.Trousseau {
	s.t.Helper()
	return s.Attach(pod.Container("trousseau").Server, filepath.Join(s.node.Dir, "run", "kms.sock"),
		net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
}

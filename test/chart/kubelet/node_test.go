// SPDX-License-Identifier: Apache-2.0

package kubelet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
)

// machine is a node that is on, with a fake API server that can be down.
type machine struct {
	*node
	*kubelet.Node
	api  *fake.Clientset
	down atomic.Bool
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	n := newNode(t)
	m := &machine{node: n, api: n.kubelet.API.(*fake.Clientset)}
	m.api.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return m.down.Load(), nil, errors.New("the API server is down")
	})
	o := n.kubelet.Options
	o.Root = filepath.Join(n.Dir, "node1")
	m.Node = kubelet.NewNode("node1", o)
	m.powerOn()
	return m
}

func (m *machine) powerOn() {
	m.t.Helper()
	if err := m.PowerOn(); err != nil {
		m.t.Fatal(err)
	}
}

// simple returns a pod with one container, which serves if it gets an address.
func (m *machine) simple(name string, args ...string) *corev1.Pod {
	pod := m.pod(0)
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	pod.Name, pod.Spec.InitContainers, pod.Spec.NodeName = name, nil, ""
	pod.Spec.Volumes = pod.Spec.Volumes[:3]
	pod.Spec.Volumes[0].EmptyDir.Medium = corev1.StorageMediumMemory
	kind := corev1.HostPathDirectoryOrCreate
	pod.Spec.Volumes[1].HostPath = &corev1.HostPathVolumeSource{Path: "/etc/example", Type: &kind}
	main := &pod.Spec.Containers[0]
	main.Args = args
	main.VolumeMounts = main.VolumeMounts[:4]
	return pod
}

func (m *machine) manifest(name string, content any) {
	m.t.Helper()
	text, ok := content.(string)
	if !ok {
		out, err := json.Marshal(content)
		if err != nil {
			m.t.Fatal(err)
		}
		text = string(out)
	}
	m.Replace(filepath.Join(m.Manifests(), name), text)
}

func (m *machine) assign(pod *corev1.Pod) {
	m.t.Helper()
	pod.Spec.NodeName, pod.UID = "node1", types.UID(pod.Name)
	if _, err := m.api.CoreV1().Pods("default").Create(m.t.Context(), pod, metav1.CreateOptions{}); err != nil {
		m.t.Fatal(err)
	}
}

// happened returns the events of pods and manifests as "name what".
func (m *machine) happened() []string {
	var all []string
	for _, e := range m.Events() {
		if e.Pod != "" {
			all = append(all, e.Pod+" "+e.What)
		}
	}
	return all
}

// awaitEvents waits until exactly these events of pods have happened.
func (m *machine) awaitEvents(want ...string) {
	m.t.Helper()
	m.Await(time.Minute, "events", func(context.Context) error {
		if got := m.happened(); !slices.Equal(got, want) {
			return fmt.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		return nil
	})
}

// awaitPods waits until exactly these pods are ready.
func (m *machine) awaitPods(names ...string) {
	m.t.Helper()
	m.Await(time.Minute, "pods", func(ctx context.Context) error {
		var got []string
		for _, p := range m.Pods() {
			if err := p.Ready(ctx); err != nil {
				return err
			}
			got = append(got, p.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, names) {
			return fmt.Errorf("pods %v, want %v", got, names)
		}
		return nil
	})
}

// TestStaticPods lets manifests come, change, break and go.
func TestStaticPods(t *testing.T) {
	m := newMachine(t)
	m.down.Store(true)
	m.manifest(".a.yaml", m.simple("hidden"))
	m.manifest("a.yaml", m.simple("a"))
	seen := []string{"a-node1 started", "a-node1 ready"}
	m.awaitEvents(seen...)
	m.manifest("b.yaml", m.simple("b"))
	seen = append(seen, "b-node1 started", "b-node1 ready")
	m.awaitEvents(seen...)
	m.awaitPods("a-node1", "b-node1")

	changed := m.simple("a")
	changed.Spec.Containers[0].Env[0].Value = "otherwise"
	m.manifest("a.yaml", changed)
	seen = append(seen, "a-node1 terminating", "a-node1 ended", "a-node1 started", "a-node1 ready")
	m.awaitEvents(seen...)
	m.awaitPods("a-node1", "b-node1")
	m.Await(time.Minute, "the changed pod's report", m.Pods()[1].Container("main").Logged(0, `SAID="otherwise"`))

	m.manifest("b.yaml", "kind: [")
	seen = append(seen, "b.yaml refused")
	m.awaitEvents(seen...)
	m.awaitPods("a-node1", "b-node1")
	seen = append(seen, "b-node1 terminating", "b-node1 ended")
	m.awaitEvents(seen...)

	if err := os.Remove(filepath.Join(m.Manifests(), "a.yaml")); err != nil {
		t.Fatal(err)
	}
	m.awaitEvents(append(seen, "a-node1 terminating", "a-node1 ended")...)
	if _, err := os.Stat(m.Path("/etc/example/new")); err != nil {
		t.Errorf("the file written to the host: %v", err)
	}
}

// TestBoundPods lets the API server bind a pod and delete it.
func TestBoundPods(t *testing.T) {
	m := newMachine(t)
	pod := m.simple("bound")
	m.assign(pod)
	stored := func(ctx context.Context) (*corev1.Pod, error) {
		return m.api.CoreV1().Pods("default").Get(ctx, "bound", metav1.GetOptions{})
	}
	m.Await(time.Minute, "the pod's status", func(ctx context.Context) error {
		got, err := stored(ctx)
		if err != nil {
			return err
		}
		for _, c := range got.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && got.Status.Phase == corev1.PodRunning &&
				len(got.Status.ContainerStatuses) == 1 && got.Status.ContainerStatuses[0].Ready {
				return nil
			}
		}
		return fmt.Errorf("status %+v", got.Status)
	})
	if n, err := m.api.CoreV1().Nodes().Get(t.Context(), "node1", metav1.GetOptions{}); err != nil || len(n.Status.Conditions) != 1 {
		t.Errorf("the node is %+v, %v, want it registered and ready", n, err)
	}
	got, err := stored(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now := metav1.Now()
	got.DeletionTimestamp, got.Finalizers = &now, nil
	if _, err := m.api.CoreV1().Pods("default").Update(t.Context(), got, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	m.Await(time.Minute, "the pod to be gone", func(ctx context.Context) error {
		if _, err := stored(ctx); err == nil {
			return errors.New("it is still there")
		}
		return nil
	})
	seen := []string{"bound started", "bound ready", "bound terminating", "bound ended"}
	m.awaitEvents(seen...)

	m.assign(m.simple("failed"))
	seen = append(seen, "failed started", "failed ready")
	m.awaitEvents(seen...)
	fail := `{"status": {"phase": "Failed"}}`
	if _, err := m.api.CoreV1().Pods("default").Patch(t.Context(), "failed", types.MergePatchType, []byte(fail), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	m.awaitEvents(append(seen, "failed terminating", "failed ended")...)
	if got, err := m.api.CoreV1().Pods("default").Get(t.Context(), "failed", metav1.GetOptions{}); err != nil || got.Status.Phase != corev1.PodFailed {
		t.Errorf("the failed pod is %s, %v, want it to remain Failed", got.Status.Phase, err)
	}
}

// TestRestarts lets a liveness probe fail, and keeps trying to start a pod.
func TestRestarts(t *testing.T) {
	m := newMachine(t)
	pod := m.simple("served", "127.0.0.1:"+strconv.Itoa(m.port))
	handler := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt(m.port), Path: "/ok"}}
	pod.Spec.Containers[0].StartupProbe = &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, FailureThreshold: 60}
	pod.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, FailureThreshold: 1}
	pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, FailureThreshold: 3}
	kind := corev1.HostPathDirectory
	pod.Spec.Volumes[1].HostPath = &corev1.HostPathVolumeSource{Path: "/missing", Type: &kind}
	m.assign(pod)
	m.Await(time.Minute, "the pod to wait", func(context.Context) error {
		if got := m.happened(); len(got) < 2 || got[1] != "served waiting" {
			return fmt.Errorf("got %v", got)
		}
		return nil
	})
	if err := os.Mkdir(m.Path("/missing"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.awaitPods("served")
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/fail", m.port))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	m.Await(time.Minute, "the container to be restarted", func(ctx context.Context) error {
		got := slices.DeleteFunc(m.happened(), func(event string) bool { return event == "served waiting" || event == "served unready" })
		if want := []string{"served started", "served ready", "served restarting", "served ready"}; !slices.Equal(got, want) {
			return fmt.Errorf("got %v, want %v", got, want)
		}
		p, err := m.api.CoreV1().Pods("default").Get(ctx, "served", metav1.GetOptions{})
		if err == nil && (len(p.Status.ContainerStatuses) != 1 || p.Status.ContainerStatuses[0].RestartCount != 1) {
			err = fmt.Errorf("status %+v, want one restart", p.Status)
		}
		return err
	})
}

// TestPowerCut cuts the power. The static pod comes back at once, the other one with
// the API server.
func TestPowerCut(t *testing.T) {
	m := newMachine(t)
	m.manifest("a.yaml", m.simple("a"))
	m.assign(m.simple("bound"))
	m.awaitPods("a-node1", "bound")
	m.Write(m.Path("/run/example"), "")
	before := m.Pods()
	for _, p := range before {
		m.Await(time.Minute, "the container's report", p.Container("main").Logged(0, "mount: "))
	}

	m.down.Store(true)
	if err := m.PowerCut(); err != nil {
		t.Fatal(err)
	}
	for _, p := range before {
		c := p.Container("main")
		if c.Running() || strings.Contains(c.Log(), "SIGTERM") {
			t.Errorf("%s runs: %t; it has logged\n%s\nwant it killed", p.Name, c.Running(), c.Log())
		}
		if _, err := os.Stat(p.Volume("memory")); !os.IsNotExist(err) {
			t.Errorf("the volume in memory: %v, want it lost", err)
		}
	}
	if _, err := os.Stat(m.Path("/run/example")); !os.IsNotExist(err) {
		t.Errorf("the file in /run: %v, want it lost", err)
	}
	if _, err := os.Stat(m.Path("/etc/example/new")); err != nil {
		t.Errorf("the file on disk: %v", err)
	}

	m.powerOn()
	m.awaitPods("a-node1")
	offline := func(e kubelet.Event) bool { return e.What == kubelet.Offline }
	m.Await(time.Minute, "the kubelet to ask for its pods", func(context.Context) error {
		if !slices.ContainsFunc(m.Events(), offline) {
			return errors.New("it has not")
		}
		return nil
	})
	m.awaitPods("a-node1")
	m.down.Store(false)
	m.awaitPods("a-node1", "bound")
}

// TestBind binds the pods of a DaemonSet, but not two that use one port.
func TestBind(t *testing.T) {
	pod := func(name, node string, port int32) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)}}
		p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{HostPort: port}}}}
		if node != "" {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
					{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}},
				}}},
			}}}
		}
		return p
	}
	api := fake.NewClientset(pod("a", "node1", 8095), pod("b", "node1", 8095), pod("c", "node2", 8095), pod("d", "node1", 0), pod("e", "", 0))
	bound := make(chan string, 100)
	api.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() != "binding" {
			return false, nil, nil
		}
		b := action.(clienttesting.CreateAction).GetObject().(*corev1.Binding)
		bound <- b.Name + " " + b.Target.Name
		return true, b, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go kubelet.Bind(ctx, api)
	var got []string
	for range 3 {
		got = append(got, <-bound)
	}
	slices.Sort(got)
	if want := []string{"a node1", "c node2", "d node1"}; !slices.Equal(got, want) {
		t.Errorf("bound %v, want %v", got, want)
	}
}

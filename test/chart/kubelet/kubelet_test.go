// SPDX-License-Identifier: Apache-2.0

package kubelet_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

func TestMain(m *testing.M) {
	kubelet.Main()
	dir, err := os.MkdirTemp("", "inside")
	if err != nil {
		panic(err)
	}
	images = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// images is the directory for inside's binary.
var images string

// inside builds the binary in the image.
var inside = sync.OnceValues(func() (string, error) {
	image := filepath.Join(images, "inside")
	build := exec.Command("go", "build", "-o", image, "./testdata/inside")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return image, nil
})

// node is a bed with a kubelet and one image, which reports what it can do.
type node struct {
	*testbed.Bed
	t       *testing.T
	kubelet *kubelet.Kubelet
	port    int
}

func newNode(t *testing.T, objects ...*corev1.Secret) *node {
	t.Helper()
	bed := testbed.New(t, new(testbed.Report), t.Name())
	if err := kubelet.Usable(bed.Dir); err != nil {
		t.Skip(err)
	}
	image, err := inside()
	if err != nil {
		t.Fatal(err)
	}
	api := fake.NewClientset()
	for _, o := range objects {
		if err := api.Tracker().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	return &node{Bed: bed, t: t, port: bed.FreePort(), kubelet: kubelet.New(kubelet.Options{
		Bed: bed, API: api, Images: map[string]kubelet.Image{"example:5000/inside": {Binary: image, Path: "/bin/inside"}},
	})}
}

// pod returns a pod with a sidecar, a container, and a volume of each kind.
func (n *node) pod(user int64) *corev1.Pod {
	always, yes, no := corev1.ContainerRestartPolicyAlways, true, false
	confined := &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	container := func(name string, args ...string) corev1.Container {
		return corev1.Container{
			Name: name, Image: "example:5000/inside:v1@sha256:0", Command: []string{"inside"}, Args: args, SecurityContext: confined,
			Env: []corev1.EnvVar{{Name: "SAID", Value: "so"}},
			VolumeMounts: []corev1.VolumeMount{
				{Name: "memory", MountPath: "/memory"}, {Name: "memory", MountPath: "/read-only", ReadOnly: true},
				{Name: "node", MountPath: "/node"}, {Name: "config", MountPath: "/config"}, {Name: "secret", MountPath: "/secret"},
			},
		}
	}
	kind, mode := corev1.HostPathDirectoryOrCreate, int32(0o400)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pod", Namespace: "default", Annotations: map[string]string{"example.com/text": "text"}},
		Spec: corev1.PodSpec{
			HostNetwork: true, DNSPolicy: corev1.DNSDefault, NodeName: "node1",
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: &user},
			InitContainers:  []corev1.Container{container("sidecar")},
			Containers:      []corev1.Container{container("main", net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port)))},
			Volumes: []corev1.Volume{
				{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "node", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: filepath.Join(n.Dir, "node"), Type: &kind}}},
				{Name: "config", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
					{Path: "file", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['example.com/text']"}},
				}}}},
				{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "secret", DefaultMode: &mode}}},
			},
		},
	}
	pod.Spec.InitContainers[0].RestartPolicy = &always
	return pod
}

func (n *node) run(pod *corev1.Pod) *kubelet.Pod {
	n.t.Helper()
	if _, err := n.kubelet.API.CoreV1().Pods(pod.Namespace).Create(n.t.Context(), pod, metav1.CreateOptions{}); err != nil {
		n.t.Fatal(err)
	}
	running, err := n.kubelet.Run(n.t.Context(), pod)
	if err != nil {
		n.t.Fatal(err)
	}
	return running
}

var secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "secret", Namespace: "default"}, Data: map[string][]byte{"file": []byte("x")}}

// TestInside checks what a container can do, as root and as another user.
func TestInside(t *testing.T) {
	for _, tc := range []struct {
		user int64
		want []string
	}{
		{0, []string{"uid 0 ", "read /secret/file: ok"}},
		// The file belongs to root and has mode 0400.
		{65532, []string{"uid 65532 ", "read /secret/file: permission denied"}},
	} {
		t.Run(strconv.FormatInt(tc.user, 10), func(t *testing.T) {
			n := newNode(t, secret)
			p := n.run(n.pod(tc.user))
			c := p.Container("main")
			// Before that, neither of them handles SIGTERM.
			for _, name := range []string{"main", "sidecar"} {
				n.Await(30*time.Second, "the container's report", p.Container(name).Logged(0, "mount: "))
			}
			log := strings.ReplaceAll(c.Log(), ":  ", ": ")
			for _, want := range append(tc.want,
				"pid 1 ", "args 127.0.0.1:", `HOME="/" SAID="so"`,
				"write /new: read-only file system", "write /dev/new: ok", "write /memory/new: ok", "write /read-only/new: read-only file system", "write /node/new: ok",
				"read /config/file: ok", "read /tmp: no such file or directory", "read /root: no such file or directory", "read /home: no such file or directory",
				"mount: operation not permitted",
			) {
				if !strings.Contains(log, want) {
					t.Errorf("the container reports\n%s\nwant %q", log, want)
				}
			}
			if _, err := os.Stat(filepath.Join(n.Dir, "node", "new")); err != nil {
				t.Errorf("the file written on the node: %v", err)
			}
			if _, err := p.Terminate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTerminate checks the order of termination.
func TestTerminate(t *testing.T) {
	n := newNode(t, secret)
	p := n.run(n.pod(0))
	n.Await(30*time.Second, "the pod to be ready", p.Ready)
	for _, name := range []string{"main", "sidecar"} {
		n.Await(30*time.Second, "the container's report", p.Container(name).Logged(0, "mount: "))
	}
	if _, err := p.Terminate(t.Context()); err != nil {
		t.Error(err)
	}
	ended := func(name string) string {
		_, at, _ := strings.Cut(p.Container(name).Log(), "SIGTERM at ")
		return at // the number of digits is constant
	}
	if ended("main") == "" || ended("main") >= ended("sidecar") {
		t.Errorf("the container ended at %q, its sidecar at %q, want the container first", ended("main"), ended("sidecar"))
	}
	if pods, err := n.kubelet.API.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); err != nil || len(pods.Items) > 0 {
		t.Errorf("the API server has %v, %v, want no pod", pods.Items, err)
	}
}

// TestProbes lets probes succeed, first only the startup probe, and then fail.
func TestProbes(t *testing.T) {
	n := newNode(t, secret)
	pod := n.pod(0)
	handler := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: "127.0.0.1", Port: intstr.FromInt(n.port), Path: "/ok"}}
	main := &pod.Spec.Containers[0]
	main.StartupProbe = &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, FailureThreshold: 60}
	main.LivenessProbe = &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, FailureThreshold: 2}
	main.ReadinessProbe = &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, FailureThreshold: 1}
	p := n.run(pod)
	n.Await(30*time.Second, "the pod to be available", p.Available(time.Second))
	if err := p.Trouble(); err != nil {
		t.Errorf("trouble: %v, want none", err)
	}
	resp, err := http.Get("http://127.0.0.1:" + strconv.Itoa(n.port) + "/fail")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	n.Await(30*time.Second, "the pod to be restarted", func(ctx context.Context) error {
		if err := p.Trouble(); err == nil || !strings.Contains(err.Error(), "liveness probe has failed too often") {
			return errors.New("no trouble")
		}
		if err := p.Ready(ctx); err == nil || !strings.Contains(err.Error(), "503") {
			return errors.New("the pod is ready")
		}
		return nil
	})
	if _, err := p.Terminate(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestExecProbes lets commands in the container's namespaces succeed, and then fail:
// they look for a file that has this path only there.
func TestExecProbes(t *testing.T) {
	for _, user := range []int64{0, 65532} {
		t.Run(strconv.FormatInt(user, 10), func(t *testing.T) {
			n := newNode(t, secret)
			pod := n.pod(user)
			handler := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"inside", "probe", "/memory/new"}}}
			main := &pod.Spec.Containers[0]
			main.LivenessProbe = &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, FailureThreshold: 60}
			main.ReadinessProbe = &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, FailureThreshold: 1}
			p := n.run(pod)
			n.Await(30*time.Second, "the pod to be ready", p.Ready)
			// Each container writes the file at its start.
			for _, name := range []string{"sidecar", "main"} {
				n.Await(30*time.Second, name+" to write", p.Container(name).Logged(0, "write /memory/new"))
			}
			if err := os.Remove(filepath.Join(p.Volume("memory"), "new")); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("uid %d SAID=\"so\": stat /memory/new: no such file or directory", user)
			n.Await(30*time.Second, "the pod not to be ready", func(ctx context.Context) error {
				if err := p.Ready(ctx); err == nil || !strings.Contains(err.Error(), want) {
					return fmt.Errorf("ready: %w, want %q", err, want)
				}
				return nil
			})
			if _, err := p.Terminate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRefusals checks that the kubelet refuses what it cannot do.
func TestRefusals(t *testing.T) {
	n := newNode(t)
	for _, tc := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string
	}{
		{"network", func(p *corev1.Pod) { p.Spec.HostNetwork = false }, "a separate network"},
		{"capability", func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext = nil }, "capabilities are not supported: main"},
		{"init container", func(p *corev1.Pod) { p.Spec.InitContainers[0].RestartPolicy = nil }, "only a sidecar is supported as an init container"},
		{"image", func(p *corev1.Pod) {
			p.Spec.Volumes = slices.Delete(p.Spec.Volumes, 3, 4)
			p.Spec.InitContainers[0].Image = "inside:v1"
		}, "the node has no image inside:v1"},
		{"object of a static pod", func(p *corev1.Pod) { p.Annotations["kubernetes.io/config.source"] = "file" }, "a static pod may not refer to an object"},
		{"object that is not there", func(*corev1.Pod) {}, `secrets "secret" not found`},
	} {
		pod := n.pod(0)
		pod.Name = strings.ReplaceAll(tc.name, " ", "-")
		tc.change(pod)
		if _, err := n.kubelet.Run(t.Context(), pod); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		}
	}
}

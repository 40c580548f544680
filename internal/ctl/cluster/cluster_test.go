// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
	"github.com/trousseau-io/trousseau/internal/ctl/cluster"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/testkit/clustertest"
)

// ops are the ops endpoints of a healthy trousseau.
func ops(t *testing.T, keyID string) (addr string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			fmt.Fprint(w, `{"ready":true}`)
			return
		}
		fmt.Fprintf(w, "# TYPE trousseau_generation gauge\ntrousseau_generation 1\n"+
			"# TYPE trousseau_key_info gauge\ntrousseau_key_info{key_id_hash=%q,key=\"kek\",version=\"1\"} 1\n", keyID)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func open(t *testing.T, api *clustertest.API) *cluster.Cluster {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := api.WriteKubeconfig(file, "prod"); err != nil {
		t.Fatal(err)
	}
	config, err := apiserver.Kubeconfig(file, "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.New(cluster.Options{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// survey finds and asks the nodes of a state. It returns their health by name.
func survey(t *testing.T, s clustertest.State) (fleet.Report, map[string]string) {
	t.Helper()
	r := fleet.Survey(t.Context(), fleet.Options{Find: open(t, clustertest.Start(t, s)).Find})
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	health := make(map[string]string)
	for _, a := range r.Nodes {
		health[a.Node] = a.Line()
	}
	return r, health
}

const loopback = "127.0.0.1:8095"

// TestNodesAreFound asks two nodes whose ops endpoints listen on the pods' loopback
// address only, as the chart has them.
func TestNodesAreFound(t *testing.T) {
	first, second := ops(t, "sha256:aa"), ops(t, "sha256:aa")
	r, health := survey(t, clustertest.State{
		Pods: []corev1.Pod{
			clustertest.Pod("b", "node2", "10.0.0.2", loopback),
			clustertest.Pod("a", "node1", "10.0.0.1", loopback),
		},
		Ops: map[string]string{"a": first, "b": second}, APIServers: []string{"10.0.0.1", "10.0.0.2"},
	})
	if want := map[string]string{"node1": "healthy", "node2": "healthy"}; !reflect.DeepEqual(health, want) || !r.OK() {
		t.Errorf("got %v, %+v", health, r.Findings)
	}
	if want := []fleet.APIServer{{Address: "10.0.0.1", Node: "node1"}, {Address: "10.0.0.2", Node: "node2"}}; !slices.Equal(r.APIServers, want) {
		t.Errorf("got API servers %+v, want %+v", r.APIServers, want)
	}
}

// TestWhichPods checks which of a node's pods is asked, under which name and port.
func TestWhichPods(t *testing.T) {
	addr := ops(t, "sha256:aa")
	pod := func(name string, change func(*corev1.Pod)) corev1.Pod {
		p := clustertest.Pod(name, "node1", "10.0.0.1", loopback)
		change(&p)
		return p
	}
	running := func(*corev1.Pod) {}
	for _, c := range []struct {
		name string
		pods []corev1.Pod
		want string // node
		port string // pod and port
	}{
		{"another port", []corev1.Pod{clustertest.Pod("p", "node1", "10.0.0.1", ":9000")}, "node1:9000", "p:9000"},
		{"flag and value", []corev1.Pod{pod("p", func(p *corev1.Pod) { p.Spec.Containers[0].Args = []string{"-ops-addr", "127.0.0.1:9001"} })}, "node1:9001", "p:9001"},
		{"default port", []corev1.Pod{pod("p", func(p *corev1.Pod) { p.Spec.Containers[0].Args = nil })}, "node1", "p:8095"},
		{"network of its own", []corev1.Pod{pod("p", func(p *corev1.Pod) { p.Spec.HostNetwork = false })}, "node1/p", "p:8095"},
		{"update: new one does not run yet", []corev1.Pod{pod("old", running), pod("new", func(p *corev1.Pod) {
			p.Status.Phase, p.CreationTimestamp = corev1.PodPending, metav1.Now()
		})}, "node1", "old:8095"},
		{"update: old one ends", []corev1.Pod{pod("old", func(p *corev1.Pod) { now := metav1.Now(); p.DeletionTimestamp = &now }), pod("new", running)}, "node1", "new:8095"},
		{"evicted from another node", []corev1.Pod{pod("a", func(p *corev1.Pod) {
			p.Status.Phase, p.Spec.NodeName = corev1.PodFailed, "node2"
		}), pod("b", running)}, "node1", "b:8095"},
		{"other labels", []corev1.Pod{pod("p", running), pod("installer", func(p *corev1.Pod) {
			p.Labels = map[string]string{"app.kubernetes.io/name": "trousseau-installer"}
			p.Spec.NodeName = "node2"
		})}, "node1", "p:8095"},
	} {
		t.Run(c.name, func(t *testing.T) {
			api := clustertest.Start(t, clustertest.State{
				Pods: c.pods, APIServers: []string{"10.0.0.1"}, Ops: map[string]string{"p": addr, "old": addr, "new": addr, "a": addr, "b": addr},
			})
			r := fleet.Survey(t.Context(), fleet.Options{Find: open(t, api).Find})
			if !r.OK() || len(r.Nodes) != 1 || r.Nodes[0].Node != c.want {
				t.Errorf("got %+v, %v, %+v, want %s", r.Nodes, r.Err, r.Findings, c.want)
			}
			for _, p := range api.Ports() {
				if p != c.port {
					t.Errorf("asked %s, want %s", p, c.port)
				}
			}
		})
	}
}

// TestAPIServerWithoutPlugin leaves a node out.
func TestAPIServerWithoutPlugin(t *testing.T) {
	addr := ops(t, "sha256:aa")
	s := clustertest.State{
		Pods: []corev1.Pod{clustertest.Pod("p", "node1", "10.0.0.1", loopback)}, Ops: map[string]string{"p": addr},
		APIServers: []string{"10.0.0.1", "192.0.2.1", "192.0.2.2"}, Nodes: map[string][]string{"node1": {"192.0.2.1"}},
	}
	r, _ := survey(t, s)
	if len(r.Findings) != 1 || r.Findings[0].ID != "api-server-without-plugin" || r.Findings[0].Subject != "192.0.2.2" || r.OK() {
		t.Errorf("got %+v", r.Findings)
	}
	s.APIServers = nil
	if r, _ = survey(t, s); len(r.Findings) != 1 || r.Findings[0].ID != "api-servers-unknown" || !r.OK() {
		t.Errorf("of a cluster that publishes none: got %+v", r.Findings)
	}
}

// TestNothingListens has a pod whose port is closed, and one that may not be reached.
func TestNothingListens(t *testing.T) {
	s := clustertest.State{
		Pods: []corev1.Pod{clustertest.Pod("p", "node1", "10.0.0.1", loopback)}, Ops: map[string]string{"p": "127.0.0.1:1"},
		APIServers: []string{"10.0.0.1"},
	}
	_, health := survey(t, s)
	if want := "unreachable: connection refused on the pod's loopback address: check "; !strings.HasPrefix(health["node1"], want) {
		t.Errorf("got %q, want %q", health["node1"], want)
	}
	s.Forbidden = []string{"portforward"}
	_, health = survey(t, s)
	if want := "unreachable: port-forward to pod kube-system/p: "; !strings.HasPrefix(health["node1"], want) || !strings.Contains(health["node1"], "portforward is forbidden") {
		t.Errorf("got %q, want %q", health["node1"], want)
	}
}

// TestNotFound has the reasons for which no node is found.
func TestNotFound(t *testing.T) {
	pods := []corev1.Pod{clustertest.Pod("p", "node1", "10.0.0.1", loopback)}
	for _, c := range []struct {
		name  string
		state clustertest.State
		want  string
	}{
		{"no pod", clustertest.State{}, "no pod has the labels app.kubernetes.io/name=trousseau: check --selector and --namespace, or name the nodes"},
		{"pods", clustertest.State{Pods: pods, Forbidden: []string{"/pods"}}, "listing pods: /pods is forbidden"},
		{"slices", clustertest.State{Pods: pods, Forbidden: []string{"endpointslices"}}, "listing API servers, the EndpointSlices of default/kubernetes: endpointslices is forbidden"},
		{"nodes", clustertest.State{Pods: pods, APIServers: []string{"192.0.2.1"}, Forbidden: []string{"nodes"}}, "reading the addresses of node node1: nodes is forbidden"},
	} {
		r := fleet.Survey(t.Context(), fleet.Options{Find: open(t, clustertest.Start(t, c.state)).Find})
		if r.Err == nil || r.Err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.name, r.Err, c.want)
		}
	}
}

// TestSilentAPIServer has an API server that accepts connections and never answers.
func TestSilentAPIServer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c, err := cluster.New(cluster.Options{Config: &rest.Config{Host: "http://" + silent.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	want := "listing pods: http://" + silent.Addr().String() + " does not answer: context deadline exceeded"
	if _, err := c.Find(ctx); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

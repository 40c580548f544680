// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator looks at forty clusters. Three have a real kube-apiserver, Vault and
// trousseau, and port-forward goes through kubelet's own code; 37 are fakes, some of
// which do not answer.
func TestFortyClusters(t *testing.T) {
	bed := testbed.New(t, &report, "9 trousseauctl status for forty clusters")
	real := newRealClusters(t, bed)
	a := administrator{t, nil}
	first := real[0]

	// One of them, with the documented rights and no others.
	_, errs := a.trousseauctl(1, "status", "--kubeconfig", first.reader)
	mustHold(t, errs, `listing pods: pods is forbidden: User "reader" cannot list resource "pods"`)
	for _, c := range real {
		c.APIServer.Kubectl("apply", "-f", bed.Write("find-nodes.yaml", bed.Documented("find-nodes.yaml")))
		c.APIServer.Kubectl("create", "clusterrolebinding", "reader", "--clusterrole=trousseau-find-nodes", "--user=reader")
	}
	var out string
	bed.Await(10*time.Second, "the rights", func(context.Context) error {
		program, _ := trousseauctl()
		var code int
		if out, errs, code = a.run(program, "status", "--kubeconfig", first.reader); code != 0 {
			return errors.New(out + errs)
		}
		return nil
	})
	mustHold(t, out, "node1:"+first.port()+"  healthy ")
	if first.forwarded.Load() == 0 {
		t.Error("nothing went through kubelet")
	}
	bed.Observe("status --kubeconfig: port-forward through kube-apiserver and kubelet's code, with the documented ClusterRole")

	// A node without its pod is found by the address of its API server.
	slice := first.publish("10.0.0.99")
	out, _ = a.trousseauctl(3, "status", "--kubeconfig", first.reader)
	mustHold(t, out, "The API server at 10.0.0.99 has no pod of trousseau on its node.")
	out, _ = a.trousseauctl(3, "status", "--kubeconfig", first.reader, "127.0.0.1:"+first.port())
	mustHold(t, out, "The cluster has 2 API servers, and only 1 node is named.")
	first.APIServer.Kubectl("delete", "-n=default", "endpointslice", slice)

	file := bed.Write("clusters.yaml", "apiVersion: trousseau.io/v1\nkind: Inventory\nclusters:\n"+entries(t, real))
	program, err := trousseauctl()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	out, errs, code := a.run(program, "status", "--inventory", file)
	took := time.Since(began)
	if code != 3 || errs != "" {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if took > 5*time.Second {
		t.Errorf("forty clusters took %s, want less than 5s", took)
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if len(lines) > 50 {
		t.Errorf("%d lines, want one screen of 50", len(lines))
	}
	mustHold(t, out, "40 clusters: 36 ok, 3 with findings, 1 failed", "real-1   ok        1 node, trousseau-kms-vault version 1",
		"fake-07  findings  127.0.0.1:1: connection refused", "fake-13  findings  The nodes disagree on key_id: ",
		"fake-21  findings  ", ": no answer in time: ", "fake-30  failed    listing pods: https://127.0.0.1:1 does not answer: ")
	bed.Observe("forty clusters on one screen of %d lines, after %.1f s", len(lines), took.Seconds())

	out, _ = a.trousseauctl(3, "status", "--inventory", file, "-o", "json")
	var all struct {
		Kind   string
		Report struct {
			Clusters []struct {
				Name     string
				Document struct{ Kind, Verdict string }
			}
		}
	}
	decode(t, out, &all)
	if all.Kind != "StatusOfClusters" || len(all.Report.Clusters) != 40 || all.Report.Clusters[0].Name != "real-1" || all.Report.Clusters[0].Document.Verdict != "ok" {
		t.Errorf("got %+v", all)
	}
	out, _ = a.trousseauctl(0, "status", "--inventory", file, "--cluster", "real-2")
	mustHold(t, out, "node1:"+real[1].port()+"  healthy ")
}

// realCluster is a kube-apiserver and one node, whose pod is a real trousseau: its ops
// endpoints listen on the loopback address only.
type realCluster struct {
	*testbed.Node
	*kubelet
	t      *testing.T
	reader string // kubeconfig of a user without rights
}

// newRealClusters starts three clusters, in one etcd and with one Vault.
func newRealClusters(t *testing.T, bed *testbed.Bed) (all []*realCluster) {
	t.Helper()
	c := testbed.NewCluster(bed, testbed.Options{ControlPlanes: 3})
	for i, n := range c.Nodes {
		n.APIServer.Args = append(n.APIServer.Args, fmt.Sprintf("--etcd-prefix=/registry-%d", i),
			// It publishes this address itself. It need not be one of this machine.
			"--endpoint-reconciler-type=master-count", fmt.Sprintf("--advertise-address=10.0.0.%d", i+1), "--service-cluster-ip-range=10.96.0.0/16")
		n.APIServer.Start()
		n.APIServer.AwaitLive() // one at a time: three that start would compete for this machine
	}
	c.SetUpVault()
	c.Nodes[0].SetUpAgent()
	c.Nodes[0].Agent.Start()
	for i, n := range c.Nodes {
		n.Trousseau = bed.NewTrousseau(fmt.Sprintf("trousseau-real-%d", i+1), c.Nodes[0].ConfigFile, filepath.Join(n.Dir, "run", "real.sock"))
		n.Trousseau.Start()
		n.APIServer.AwaitReady()
		r := &realCluster{Node: n, t: t, kubelet: join(t, n.APIServer, "node1", fmt.Sprintf("10.0.0.%d", i+1), "127.0.0.1", n.Trousseau.Args)}
		text := readFile(t, n.APIServer.Kubeconfig())
		r.reader = bed.Write(fmt.Sprintf("reader-%d.conf", i+1), strings.Replace(text, "    token: ", "    as: reader\n    token: ", 1))
		n.Trousseau.AwaitReady()
		all = append(all, r)
	}
	return all
}

// port is that of the node's ops endpoints.
func (c *realCluster) port() string {
	_, port, _ := strings.Cut(opsAddr(c.t, c.Trousseau), ":")
	return port
}

// publish adds the address of another API server, and returns the name of its slice.
func (c *realCluster) publish(address string) string {
	c.t.Helper()
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "another", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{address}}},
	}
	if _, err := c.APIServer.Client.DiscoveryV1().EndpointSlices("default").Create(c.t.Context(), slice, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	return slice.Name
}

// entries are the three clusters and 37 fakes of three nodes each.
func entries(t *testing.T, real []*realCluster) string {
	t.Helper()
	var b strings.Builder
	for i, c := range real {
		fmt.Fprintf(&b, "- name: real-%d\n  kubeconfig: %s\n", i+1, c.reader)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	const refused = "127.0.0.1:1"
	nobody := filepath.Join(t.TempDir(), "nobody.conf")
	writeFile(t, nobody, strings.Replace(readFile(t, real[0].reader), real[0].APIServer.URL, "https://"+refused, 1))
	for i := 1; i <= 37; i++ {
		nodes := []string{fake(t, "one"), fake(t, "one"), fake(t, "one")}
		switch i {
		case 7:
			nodes[1] = refused
		case 13:
			nodes[2] = fake(t, "another")
		case 21:
			nodes[0] = silent.Addr().String()
		}
		fmt.Fprintf(&b, "- name: fake-%02d\n", i)
		if i == 30 {
			fmt.Fprintf(&b, "  kubeconfig: %s\n", nobody)
			continue
		}
		fmt.Fprintf(&b, "  ops: [%s]\n  status: {timeout: 2s}\n", strings.Join(nodes, ", "))
	}
	return b.String()
}

// fake is the address of a node's ops endpoints.
func fake(t *testing.T, keyID string) string {
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

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

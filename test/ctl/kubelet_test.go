// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// kubelet is that of a node with one pod, whose containers a test runs itself. It serves
// port-forward with the library that kubelet and the container runtimes use.
type kubelet struct {
	loopback  string       // the address that stands for the node's loopback address
	forwarded atomic.Int64 // sessions
}

// join adds a node to a cluster, and the pod that the chart would create there: with
// these arguments of trousseau. The node's address is hostIP.
func join(t *testing.T, api *testbed.APIServer, node, hostIP, loopback string, args []string) *kubelet {
	t.Helper()
	k := &kubelet{loopback: loopback}
	server := httptest.NewTLSServer(k)
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseInt(at.Port(), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	ctx, core := t.Context(), api.Client.CoreV1()
	n, err := core.Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: at.Hostname()}}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
	if _, err = core.Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	pods := core.Pods("kube-system")
	pod, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "trousseau-" + node, Labels: map[string]string{"app.kubernetes.io/name": "trousseau"}},
		Spec: corev1.PodSpec{
			NodeName: node, HostNetwork: true,
			Containers: []corev1.Container{{Name: "trousseau", Image: "trousseau", Args: args}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, HostIP: hostIP, HostIPs: []corev1.HostIP{{IP: hostIP}}, PodIP: hostIP, PodIPs: []corev1.PodIP{{IP: hostIP}},
	}
	if _, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	return k
}

// ServeHTTP serves /portForward/NAMESPACE/POD.
func (k *kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.forwarded.Add(1)
	portforward.ServePortForward(w, r, k, r.URL.Path, "", &portforward.V4Options{}, time.Minute, 30*time.Second, portforward.SupportedProtocols)
}

// PortForward dials the port on the loopback address in the pod's network.
func (k *kubelet) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", k.loopback, port))
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(conn, stream) }()
	_, err = io.Copy(stream, conn)
	return err
}

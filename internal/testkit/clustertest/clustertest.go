// SPDX-License-Identifier: Apache-2.0

// Package clustertest is the part of a cluster's API that shows the plugin's pods: pods,
// nodes, EndpointSlices of the API servers, and port-forward over SPDY.
package clustertest

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// Token is the bearer token that the API wants.
const Token = "cluster-token"

// State is what the API shows.
type State struct {
	Pods []corev1.Pod
	// Ops are the addresses behind the pods' loopback address, by name of the pod.
	Ops map[string]string
	// APIServers are the published addresses; Nodes have further addresses by name.
	APIServers []string
	Nodes      map[string][]string
	// Forbidden are parts of paths that the token may not use.
	Forbidden []string
}

// API serves a State. Its methods are safe for concurrent use.
type API struct {
	server *httptest.Server

	mu    sync.Mutex
	state State
	ports []string // that were forwarded
}

// Start serves s until the test ends.
func Start(t *testing.T, s State) *API {
	t.Helper()
	a := New(s)
	t.Cleanup(a.Close)
	return a
}

// New serves s until Close.
func New(s State) *API {
	a := &API{state: s}
	a.server = httptest.NewTLSServer(a) // client-go sends no token without TLS
	return a
}

// Close ends the server and its connections.
func (a *API) Close() {
	a.server.CloseClientConnections()
	a.server.Close()
}

// URL returns the API's URL.
func (a *API) URL() string { return a.server.URL }

// Set replaces the state.
func (a *API) Set(s State) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state = s
}

// Ports returns the pods and ports that were forwarded, such as pod:8095.
func (a *API) Ports() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.ports...)
}

// WriteKubeconfig writes a kubeconfig with this context, which is the current one.
func (a *API) WriteKubeconfig(file, context string) error {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw})
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: %[1]s
clusters: [{name: %[1]s, cluster: {server: %[2]q, certificate-authority-data: %[4]s}}]
contexts: [{name: %[1]s, context: {cluster: %[1]s, user: %[1]s}}]
users: [{name: %[1]s, user: {token: %[3]s}}]
`, context, a.URL(), Token, base64.StdEncoding.EncodeToString(ca))
	return os.WriteFile(file, []byte(text), 0o600)
}

// Pod is a pod of the chart: on the host's network, with this ops address.
func Pod(name, node, hostIP, ops string) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "kube-system", CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0)),
			Labels: map[string]string{"app.kubernetes.io/name": "trousseau", "app.kubernetes.io/instance": "trousseau"},
		},
		Spec: corev1.PodSpec{
			NodeName: node, HostNetwork: true,
			Containers: []corev1.Container{{Name: "trousseau", Args: []string{"--socket-mode=0600", "--ops-addr=" + ops}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, HostIP: hostIP, HostIPs: []corev1.HostIP{{IP: hostIP}}},
	}
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	s := a.state
	a.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+Token {
		refuse(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	for _, part := range s.Forbidden {
		if strings.Contains(r.URL.Path, part) {
			refuse(w, http.StatusForbidden, part+" is forbidden")
			return
		}
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch last := parts[len(parts)-1]; {
	case last == "pods":
		selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
		if err != nil {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
		var list corev1.PodList
		for _, p := range s.Pods {
			if selector.Matches(labels.Set(p.Labels)) && (len(parts) == 3 || parts[3] == p.Namespace) {
				list.Items = append(list.Items, p)
			}
		}
		answer(w, list)
	case last == "endpointslices":
		if r.URL.Query().Get("labelSelector") != "kubernetes.io/service-name=kubernetes" {
			refuse(w, http.StatusBadRequest, "another Service")
			return
		}
		var list discoveryv1.EndpointSliceList
		if len(s.APIServers) > 0 {
			list.Items = []discoveryv1.EndpointSlice{{Endpoints: []discoveryv1.Endpoint{{Addresses: s.APIServers}}}}
		}
		answer(w, list)
	case len(parts) == 4 && parts[2] == "nodes":
		var node corev1.Node
		for _, address := range s.Nodes[last] {
			node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: address})
		}
		answer(w, node)
	case last == "portforward":
		a.forward(w, r, parts[len(parts)-2], s.Ops)
	default:
		refuse(w, http.StatusNotFound, "no such page")
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Message: message,
	})
}

// forward serves one session, as kubelet does (cri-streaming/pkg/streaming/portforward).
// It knows no WebSockets, as API servers before 1.30.
func (a *API) forward(w http.ResponseWriter, r *http.Request, pod string, ops map[string]string) {
	if !httpstream.IsUpgradeRequest(r) || strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		refuse(w, http.StatusBadRequest, "want SPDY")
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		return // Handshake has answered
	}
	streams := make(chan httpstream.Stream, 2)
	session := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if session == nil {
		return
	}
	defer session.Close()
	var failure, data httpstream.Stream
	for failure == nil || data == nil {
		select {
		case s := <-streams:
			if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				failure = s
			} else {
				data = s
			}
		case <-session.CloseChan():
			return
		}
	}
	a.mu.Lock()
	a.ports = append(a.ports, pod+":"+data.Headers().Get(corev1.PortHeader))
	a.mu.Unlock()
	target, err := net.Dial("tcp", ops[pod])
	if err != nil {
		fmt.Fprintf(failure, "error forwarding port %s to pod %s, uid : failed to connect to localhost:%[1]s inside namespace: connect: connection refused",
			data.Headers().Get(corev1.PortHeader), pod)
	} else {
		go func() { _, _ = io.Copy(target, data) }()
		_, _ = io.Copy(data, target)
		_ = target.Close()
	}
	_ = data.Close()
	_ = failure.Close()
	<-session.CloseChan()
}

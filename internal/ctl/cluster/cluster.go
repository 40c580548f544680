// SPDX-License-Identifier: Apache-2.0

// Package cluster finds the nodes of Trousseau through a cluster's API: the plugin's
// pods, and the API servers that need one each. The daemon never links it.
package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/rest"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

// Selector is the label selector of the chart's pods, static ones included.
const Selector = "app.kubernetes.io/name=trousseau"

// ErrNoPods means that no pod has the labels.
var ErrNoPods = errors.New("no pod has the labels")

// Options say where the plugin's pods are.
type Options struct {
	// Config reaches the cluster's API.
	Config *rest.Config
	// Namespace of the pods; "" for all.
	Namespace string
	// Selector is the label selector of the pods; "" for that of the chart.
	Selector string
}

// Cluster is one cluster. It is safe for concurrent use.
type Cluster struct {
	options Options
	client  rest.Interface
}

// New returns the cluster that Config reaches.
func New(o Options) (*Cluster, error) {
	o.Selector = cmp.Or(o.Selector, Selector)
	client, err := apiserver.Pages(o.Config, o.Config.Host)
	if err != nil {
		return nil, err
	}
	return &Cluster{options: o, client: client}, nil
}

// Find returns the nodes of the plugin's pods, sorted by name, and the API servers. It
// fails with ErrNoPods if there is none.
func (c *Cluster) Find(ctx context.Context) (fleet.Members, error) {
	pods, err := c.pods(ctx)
	if err != nil {
		return fleet.Members{}, fmt.Errorf("listing pods: %w", err)
	}
	if len(pods) == 0 {
		return fleet.Members{}, fmt.Errorf("%w %s: check --selector and --namespace, or name the nodes", ErrNoPods, c.options.Selector)
	}
	var found fleet.Members
	for _, p := range pods {
		found.Nodes = append(found.Nodes, fleet.NewNode(name(p), c.forwarder(p)))
	}
	addresses, err := c.APIServers(ctx)
	if err != nil {
		return fleet.Members{}, err
	}
	for _, address := range addresses {
		node, err := c.nodeOf(ctx, address, pods)
		if err != nil {
			return fleet.Members{}, err
		}
		found.APIServers = append(found.APIServers, fleet.APIServer{Address: address, Node: node})
	}
	return found, nil
}

// pods returns one pod for each ops endpoint, sorted by name. Pods on the node's network
// share their node's endpoint: during an update the old pod and the new one.
func (c *Cluster) pods(ctx context.Context) ([]corev1.Pod, error) {
	path := "/api/v1/pods"
	if c.options.Namespace != "" {
		path = "/api/v1/namespaces/" + c.options.Namespace + "/pods"
	}
	var list corev1.PodList
	if err := c.get(ctx, path, c.options.Selector, &list); err != nil {
		return nil, err
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	slices.SortFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(cmp.Compare(name(a), name(b)), cmp.Compare(rank(a), rank(b)), b.CreationTimestamp.Compare(a.CreationTimestamp.Time))
	})
	return slices.CompactFunc(pods, func(a, b corev1.Pod) bool { return name(a) == name(b) }), nil
}

// rank is lower for a pod that is more likely to answer.
func rank(p corev1.Pod) int {
	switch {
	case p.Status.Phase != corev1.PodRunning:
		return 2
	case p.DeletionTimestamp != nil:
		return 1
	}
	return 0
}

// name is the node's, with what tells its ops endpoints from others on the node.
func name(p corev1.Pod) string {
	name := p.Spec.NodeName
	if !p.Spec.HostNetwork {
		name += "/" + p.Name
	}
	if port := opsPort(p); port != fleet.DefaultPort {
		name += ":" + port
	}
	return name
}

// APIServers returns the addresses of all API servers: each publishes its own in the
// EndpointSlices of the Service kubernetes. There are none if the cluster does not.
func (c *Cluster) APIServers(ctx context.Context) (addresses []string, err error) {
	var list discoveryv1.EndpointSliceList
	err = c.get(ctx, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", discoveryv1.LabelServiceName+"=kubernetes", &list)
	if err != nil {
		return nil, fmt.Errorf("listing API servers, the EndpointSlices of default/kubernetes: %w", err)
	}
	for _, slice := range list.Items {
		for _, endpoint := range slice.Endpoints {
			addresses = append(addresses, endpoint.Addresses...)
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses), nil
}

// nodeOf returns the node of the plugin that serves the API server at an address: the
// node's addresses are those of its pods on the node's network, and those that the Node
// lists. "" if there is none.
func (c *Cluster) nodeOf(ctx context.Context, address string, pods []corev1.Pod) (string, error) {
	for _, p := range pods {
		if p.Status.HostIP == address || slices.Contains(p.Status.HostIPs, corev1.HostIP{IP: address}) {
			return p.Spec.NodeName, nil
		}
	}
	for _, p := range pods {
		var node corev1.Node
		if err := c.get(ctx, "/api/v1/nodes/"+p.Spec.NodeName, "", &node); err != nil {
			return "", fmt.Errorf("reading the addresses of node %s: %w", p.Spec.NodeName, err)
		}
		if slices.ContainsFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Address == address }) {
			return p.Spec.NodeName, nil
		}
	}
	return "", nil
}

func (c *Cluster) get(ctx context.Context, path, selector string, into any) error {
	request := c.client.Get().AbsPath(path).SetHeader("Accept", "application/json")
	if selector != "" {
		request = request.Param("labelSelector", selector)
	}
	result := request.Do(ctx)
	if err := result.Error(); err != nil { // with the API server's own words, unlike Raw's
		return c.unreachable(err)
	}
	text, err := result.Raw()
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// unreachable shortens a network error to the server and the reason.
func (c *Cluster) unreachable(err error) error {
	var asked *url.Error
	if !errors.As(err, &asked) {
		return err
	}
	err = asked.Err
	var network *net.OpError
	if errors.As(err, &network) {
		err = network.Err
	}
	return fmt.Errorf("%s does not answer: %w", c.options.Config.Host, err)
}

// opsPort is the port of a pod's ops endpoints, from its container's --ops-addr.
func opsPort(p corev1.Pod) string {
	port := fleet.DefaultPort
	for _, c := range p.Spec.Containers {
		args := slices.Concat(c.Command, c.Args)
		for i, arg := range args {
			flag, value, given := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
			if flag != "-ops-addr" && flag != "ops-addr" {
				continue
			}
			if !given && i+1 < len(args) {
				value = args[i+1]
			}
			if _, its, err := net.SplitHostPort(value); err == nil {
				if _, err := strconv.ParseUint(its, 10, 16); err == nil {
					port = its
				}
			}
		}
	}
	return port
}

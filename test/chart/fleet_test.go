// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// fleet is a stage with control-plane nodes that run pods by themselves, and with
// kube-controller-manager, so that DaemonSets roll out as they do in a cluster. One
// kube-apiserver serves all nodes, because three would compete for this machine. It
// uses the KMS socket of the first node.
type fleet struct {
	*stage
	nodes       []*kubelet.Node
	controllers *testbed.Server
}

// newFleet starts the API server without encryption, the controllers and the nodes.
// Vault is set up as the documentation describes. Flags are kube-controller-manager's.
func newFleet(t *testing.T, title string, nodes int, flags ...string) *fleet {
	t.Helper()
	return prepareStage(t, title).fleet(nodes, flags...)
}

// fleet makes a prepared stage one.
func (s *stage) fleet(nodes int, flags ...string) *fleet {
	s.t.Helper()
	f := &fleet{stage: s}
	api := f.node.APIServer
	// The testbed's servers run without it.
	api.Args = slices.DeleteFunc(api.Args, func(arg string) bool { return arg == "--disable-admission-plugins=ServiceAccount" })
	api.Start()
	f.SetUpVault()
	// The chart creates these itself.
	api.Kubectl("delete", "-f", filepath.Join(f.Dir, "setup", "service-account.yaml"))
	// Here the host's paths are those of each node.
	f.values += "," + f.Write("fleet.yaml", "socket: {directory: "+socketDir+"}\n")
	f.controllers = f.NewControllerManager(flags...)
	f.controllers.Start()
	ctx, cancel := context.WithCancel(context.Background())
	f.Defer(cancel)
	go kubelet.Bind(ctx, api.Client)
	for i := range nodes {
		name := fmt.Sprintf("node%d", i+1)
		o := f.kubelet.Options
		o.Root = filepath.Join(f.Dir, name)
		f.nodes = append(f.nodes, kubelet.NewNode(name, o))
	}
	f.node.Trousseau.Socket = f.nodes[0].Path(socketDir + "/kms.sock")
	f.powerOn()
	return f
}

// socketDir is the directory of the KMS socket on each node.
const socketDir = "/run/trousseau"

// powerOn starts the nodes' kubelets.
func (f *fleet) powerOn() {
	f.t.Helper()
	for _, n := range f.nodes {
		if err := n.PowerOn(); err != nil {
			f.t.Fatal(err)
		}
	}
}

// powerCut kills everything at once, except Vault, which runs elsewhere.
func (f *fleet) powerCut() {
	f.t.Helper()
	for _, s := range []*testbed.Server{f.Etcd.Server, f.node.APIServer.Server, f.controllers} {
		if s.Running() {
			s.Kill()
		}
	}
	for _, n := range f.nodes {
		if err := n.PowerCut(); err != nil {
			f.t.Fatal(err)
		}
	}
}

// encrypt restarts the API server with the documented EncryptionConfiguration, and the
// controllers with it, because they end when their API server is away.
func (f *fleet) encrypt() {
	f.t.Helper()
	f.node.Encrypt()
	f.controllers.Stop()
	f.node.APIServer.Restart()
	f.controllers.Start()
}

// running returns the pods of a node that have this container, the oldest first.
func running(n *kubelet.Node, container string) []*kubelet.Pod {
	return slices.DeleteFunc(n.Pods(), func(p *kubelet.Pod) bool { return p.Container(container) == nil })
}

// attachTo returns the trousseau in a node's pod. Its ops endpoints are behind the
// node's port, which only one node has, or the pod's own socket.
func (f *fleet) attachTo(n *kubelet.Node, pod *kubelet.Pod, ops string) *testbed.Trousseau {
	f.t.Helper()
	return f.Attach(pod.Container("trousseau").Server, n.Path(socketDir+"/kms.sock"), ops)
}

// awaitRollout waits until the DaemonSet's controller has seen every node's pod at its
// newest revision and available.
func (f *fleet) awaitRollout(name string, within time.Duration) time.Duration {
	f.t.Helper()
	return f.Await(within, "the rollout of "+name, func(ctx context.Context) error {
		set, err := f.node.APIServer.Client.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return f.rolledOut(set)
	})
}

func (f *fleet) rolledOut(set *appsv1.DaemonSet) error {
	want := int32(len(f.nodes))
	is := set.Status
	if is.ObservedGeneration != set.Generation || is.DesiredNumberScheduled != want || is.UpdatedNumberScheduled != want || is.NumberAvailable != want ||
		is.CurrentNumberScheduled != want {
		return fmt.Errorf("generation %d, status %+v, want %d pods", set.Generation, is, want)
	}
	return nil
}

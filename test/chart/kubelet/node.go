// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// manifestDir is the directory for static pods, as kubeadm configures it.
const manifestDir = "/etc/kubernetes/manifests"

// Node is a control-plane node with a kubelet that works by itself. It starts, restarts
// and ends pods from two sources: manifests in the static pod directory, and pods that
// the API server has bound to the node, whose status it reports. Its methods may be
// called from any goroutine, except PowerOn and PowerCut.
//
// Nodes share this machine's network, so ports collide between them; paths do not. Not
// supported are mirror pods, and volumes that change by themselves: call [Pod.Sync].
type Node struct {
	*Kubelet
	Name string

	off   context.CancelFunc // cuts the power
	loops sync.WaitGroup

	mu       sync.Mutex
	assigned []corev1.Pod // what the API server said last
	workers  map[types.UID]*worker
	begun    int // pods so far
	events   []Event
}

// NewNode returns a node that is off. Root is required. It is switched off at the end
// of the test.
func NewNode(name string, o Options) *Node {
	n := &Node{Kubelet: New(o), Name: name, off: func() {}, workers: make(map[types.UID]*worker)}
	o.Bed.Defer(func() { n.stop() })
	return n
}

// Path returns the file on this machine for a path of the node.
func (n *Node) Path(path string) string { return n.host(path) }

// Manifests returns the directory for the manifests of static pods.
func (n *Node) Manifests() string { return n.host(manifestDir) }

// PowerOn starts the node. Its kubelet knows only the static pods until an API server
// answers.
func (n *Node) PowerOn() error {
	if err := errors.Join(os.MkdirAll(n.Manifests(), 0o700), os.MkdirAll(n.host("/run"), 0o755)); err != nil {
		return err
	}
	power, off := context.WithCancel(context.Background())
	n.off = off
	n.record("", PoweredOn, nil)
	n.loops.Go(func() { n.sync(power) })
	n.loops.Go(func() { n.follow(power) })
	return nil
}

// PowerCut kills everything at once, without termination, and loses what is in memory:
// /run and volumes in memory. What is on disk stays.
func (n *Node) PowerCut() error {
	var errs []error
	for _, p := range n.stop() {
		errs = append(errs, p.lose())
	}
	entries, err := os.ReadDir(n.host("/run"))
	errs = append(errs, err)
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(n.host("/run"), e.Name())))
	}
	return errors.Join(errs...)
}

// stop kills everything and returns the pods that ran.
func (n *Node) stop() []*Pod {
	n.off()
	n.loops.Wait()
	pods := n.Pods()
	for _, w := range n.workers {
		<-w.ended
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.workers)
	n.assigned = nil
	return pods
}

// Pods returns the pods that the node runs or tries to run, the oldest first.
func (n *Node) Pods() []*Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	var workers []*worker
	for _, w := range n.workers {
		workers = append(workers, w)
	}
	slices.SortFunc(workers, func(a, b *worker) int { return cmp.Compare(a.number, b.number) })
	var pods []*Pod
	for _, w := range workers {
		pods = append(pods, w.Pod)
	}
	return pods
}

// sync compares the pods that should run with those that do, until the power is off.
func (n *Node) sync(power context.Context) {
	files := make(manifests)
	for sleep(power, pace) == nil {
		static := files.read(n)
		n.mu.Lock()
		wanted := make(map[types.UID]*corev1.Pod)
		for _, pod := range static {
			wanted[pod.UID] = pod
		}
		for i := range n.assigned {
			if pod := &n.assigned[i]; wants(pod) {
				wanted[pod.UID] = pod
			}
		}
		for uid, w := range n.workers {
			if wanted[uid] != nil {
				continue
			}
			w.quit()
			if w.hasEnded() {
				delete(n.workers, uid)
			}
		}
		for uid, pod := range wanted {
			if n.workers[uid] == nil && !n.inUse(pod) {
				n.begun++
				n.workers[uid] = n.newWorker(power, pod, n.begun)
			}
		}
		n.mu.Unlock()
	}
}

// inUse reports whether another pod has the name: a kubelet starts a changed static pod
// only when the one before has ended (pkg/kubelet/pod_workers.go).
func (n *Node) inUse(pod *corev1.Pod) bool {
	for _, w := range n.workers {
		if w.Namespace == pod.Namespace && w.Name == pod.Name {
			return true
		}
	}
	return false
}

// What an [Event] says.
const (
	PoweredOn   = "powered on"
	Started     = "started"     // all containers
	Waiting     = "waiting"     // cannot start, with the reason
	Ready       = "ready"       // the condition Ready is true
	Unready     = "unready"     // it is false again, with the reason
	Restarting  = "restarting"  // a container, with the reason
	Terminating = "terminating" // all containers
	Ended       = "ended"       // all containers
	Refused     = "refused"     // a manifest, with the reason
	Offline     = "offline"     // the API server does not answer, with the reason
	Online      = "online"      // it answers
)

// Event is one thing that a node's kubelet did or saw.
type Event struct {
	At   time.Time
	Pod  string // name; the file's for Refused; empty for events of the node
	What string // such as Started
	Why  error
}

// Events returns everything that has happened so far, the oldest first. It is also in
// the log directory.
func (n *Node) Events() []Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.events)
}

func (n *Node) record(pod, what string, why error) {
	e := Event{At: time.Now(), Pod: pod, What: what, Why: why}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, e)
	log, err := os.OpenFile(filepath.Join(n.Bed.Dir, "log", "kubelet-"+n.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return // only for the reader of a failed test
	}
	defer log.Close()
	fmt.Fprintln(log, e.At.Format(time.RFC3339Nano), pod, what, why)
}

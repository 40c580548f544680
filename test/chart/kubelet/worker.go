// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// backoff is the pause before a pod or container is started again. A kubelet begins
// with 10 seconds and doubles that up to five minutes. Shortened.
const backoff = time.Second

// worker keeps one pod of a node running until it is told to quit.
type worker struct {
	*Pod
	node   *Node
	number int                // in the order of starts
	quit   context.CancelFunc // ends the pod
	ended  chan struct{}

	// Only the goroutine that reports to the API server uses it.
	reported string

	mu      sync.Mutex
	waiting error // why the pod has not started
}

// newWorker starts a pod. It is killed when the power goes off.
func (n *Node) newWorker(power context.Context, pod *corev1.Pod, number int) *worker {
	w := &worker{
		Pod: &Pod{
			// Short, because sockets in the pod's volumes have it in their paths.
			Pod: pod, kubelet: n.Kubelet, dir: n.host("/pods/" + string(pod.UID[:min(8, len(pod.UID))])),
			processes: fmt.Sprintf("%s.%d", pod.Name, number),
		},
		node: n, number: number, ended: make(chan struct{}), waiting: errNotYet,
	}
	alive, quit := context.WithCancel(power)
	w.quit = quit
	go w.run(power, alive)
	return w
}

func (w *worker) run(power, alive context.Context) {
	defer close(w.ended)
	for {
		err := w.Pod.run(alive)
		w.mu.Lock()
		w.waiting = err
		w.mu.Unlock()
		if err == nil {
			break
		}
		w.kill()
		if alive.Err() == nil {
			w.node.record(w.Name, Waiting, err)
		}
		if sleep(alive, backoff) != nil {
			return
		}
	}
	w.node.record(w.Name, Started, nil)
	var keepers sync.WaitGroup
	for _, c := range w.everyone() {
		keepers.Go(func() { w.keep(power, alive, c) })
	}
	w.observe(alive)
	keepers.Wait()
	if power.Err() == nil {
		w.node.record(w.Name, Terminating, nil)
	}
	w.end(power)
	if power.Err() == nil {
		w.node.record(w.Name, Ended, nil)
	}
}

// observe records when the pod becomes ready and unready, until alive is done.
func (w *worker) observe(alive context.Context) {
	ready := false
	for sleep(alive, pace) == nil {
		err := w.Ready(alive)
		switch {
		case err == nil && !ready:
			w.node.record(w.Name, Ready, nil)
		case err != nil && ready:
			w.node.record(w.Name, Unready, err)
		}
		ready = err == nil
	}
}

// keep restarts a container that has ended, or whose probe has failed too often, unless
// the pod is a Job's.
func (w *worker) keep(power, alive context.Context, c *Container) {
	if w.Spec.RestartPolicy == corev1.RestartPolicyNever {
		return
	}
	for sleep(alive, pace) == nil {
		why := c.trouble()
		if why == nil {
			continue
		}
		w.node.record(w.Name, Restarting, why)
		c.silence()
		c.probes.Wait()
		c.set(func() { c.ready = why })
		c.End(power, w.grace())
		if sleep(alive, backoff) != nil {
			return
		}
		if err := c.TryStart(); err != nil {
			continue // it still has trouble
		}
		c.set(func() { c.restarts++ })
		c.watch(alive)
	}
}

// end terminates the pod: SIGTERM to the containers and, when they have ended, to the
// sidecars in reverse order, each at least two seconds (KEP-753); SIGKILL after the
// grace period, or when the power goes off.
func (w *worker) end(power context.Context) {
	deadline := time.Now().Add(w.grace())
	var ends sync.WaitGroup
	for _, c := range w.containers {
		c.silence()
		ends.Go(func() { c.End(power, time.Until(deadline)) })
	}
	ends.Wait()
	for _, c := range slices.Backward(w.sidecars) {
		c.silence()
		c.End(power, max(time.Until(deadline), 2*time.Second))
	}
	for _, c := range w.everyone() {
		c.probes.Wait()
	}
}

// kill removes what a start that has failed left behind.
func (w *worker) kill() {
	for _, c := range w.everyone() {
		c.silence()
		c.End(context.Background(), 0)
		c.probes.Wait()
	}
	w.Pod.mu.Lock()
	defer w.Pod.mu.Unlock()
	w.sidecars, w.containers = nil, nil
}

func (w *worker) hasEnded() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// readiness returns since when the pod is ready, or why it is not.
func (w *worker) readiness() (since time.Time, err error) {
	w.mu.Lock()
	waiting := w.waiting
	w.mu.Unlock()
	if waiting != nil {
		return time.Time{}, waiting
	}
	if w.hasEnded() {
		return time.Time{}, errors.New("the pod has ended")
	}
	return w.readySince()
}

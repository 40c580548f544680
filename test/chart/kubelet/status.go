// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// address is the node's address, and so that of its pods.
const address = "127.0.0.1"

// report tells the API server the status of each of its pods that has changed. A pod
// that has failed never comes back to life.
func (n *Node) report(ctx context.Context, pods []corev1.Pod) error {
	var errs []error
	for _, pod := range pods {
		n.mu.Lock()
		w := n.workers[pod.UID]
		n.mu.Unlock()
		if w == nil || over(&pod) {
			continue
		}
		status, err := json.Marshal(w.podStatus())
		if err != nil {
			return err
		}
		if string(status) == w.reported {
			continue
		}
		// With its version, so that it does not overwrite what has changed meanwhile.
		patch := fmt.Sprintf(`{"metadata": {"uid": %q, "resourceVersion": %q}, "status": %s}`, pod.UID, pod.ResourceVersion, status)
		_, err = n.API.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
		switch {
		case err == nil:
			w.reported = string(status)
		case !apierrors.IsNotFound(err) && !apierrors.IsConflict(err):
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (w *worker) podStatus() corev1.PodStatus {
	since, err := w.readiness()
	ready, message := corev1.ConditionTrue, ""
	if err != nil {
		ready, message = corev1.ConditionFalse, err.Error()
		since = w.CreationTimestamp.Time
	}
	condition := func(kind corev1.PodConditionType, is corev1.ConditionStatus, message string) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: is, Message: message, LastTransitionTime: metav1.NewTime(since.Truncate(time.Second))}
	}
	status := corev1.PodStatus{
		Phase: corev1.PodPending, HostIP: address, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
		StartTime: &w.CreationTimestamp,
		Conditions: []corev1.PodCondition{
			condition(corev1.PodScheduled, corev1.ConditionTrue, ""), condition(corev1.PodInitialized, corev1.ConditionTrue, ""),
			condition(corev1.ContainersReady, ready, message), condition(corev1.PodReady, ready, message),
		},
	}
	var ended []int32 // exit codes
	for _, c := range w.everyone() {
		status.Phase = corev1.PodRunning
		own := c.containerStatus()
		if w.Spec.RestartPolicy == corev1.RestartPolicyNever && own.State.Running == nil {
			code := int32(c.ExitCode())
			own.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
			ended = append(ended, code)
		}
		if c.spec.RestartPolicy != nil {
			status.InitContainerStatuses = append(status.InitContainerStatuses, own)
		} else {
			status.ContainerStatuses = append(status.ContainerStatuses, own)
		}
	}
	if containers := len(w.everyone()); containers > 0 && len(ended) == containers {
		status.Phase = corev1.PodSucceeded
		if slices.Max(ended) > 0 {
			status.Phase = corev1.PodFailed
		}
	}
	return status
}

func (c *Container) containerStatus() corev1.ContainerStatus {
	running := c.Running()
	c.mu.Lock()
	defer c.mu.Unlock()
	started := running && c.started == nil
	status := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image, RestartCount: c.restarts,
		Started: &started, Ready: running && c.ready == nil,
	}
	if running {
		status.State.Running = new(corev1.ContainerStateRunning)
	} else {
		status.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}
	}
	return status
}

// heartbeat is how often the node reports that it lives.
const heartbeat = 5 * time.Second

// register creates the Node, or reports that it is ready, and renews its lease. Without
// that, kube-controller-manager would take the node for lost after 50 seconds.
func (n *Node) register(ctx context.Context, last *time.Time) error {
	if time.Since(*last) < heartbeat {
		return nil
	}
	now := metav1.Now()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{
			"kubernetes.io/hostname": n.Name, "kubernetes.io/os": "linux", "node-role.kubernetes.io/control-plane": "",
		}},
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule}}},
	}
	_, err := n.API.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	text, err := json.Marshal(map[string]any{"status": corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}, {Type: corev1.NodeHostName, Address: n.Name}},
		Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now,
		}},
	}})
	if err != nil {
		return err
	}
	if _, err := n.API.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, text, metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	*last = time.Now()
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Bind binds the pods of DaemonSets to their nodes until ctx is done. It takes the
// place of kube-scheduler, which is not among the servers: such a pod already names
// its node in its affinity, so there is nothing to choose. Like the scheduler it does
// not bind a pod whose host port another pod of the node uses. An API server that does
// not answer is asked again.
func Bind(ctx context.Context, api kubernetes.Interface) {
	for sleep(ctx, 4*pace) == nil {
		// Errors come back with the next attempt; a pod that stays pending shows them.
		_ = bindAll(ctx, api)
	}
}

func bindAll(ctx context.Context, api kubernetes.Interface) error {
	list, err := api.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	for i := range list.Items {
		pod := &list.Items[i]
		node := wantedNode(pod)
		if pod.Spec.NodeName != "" || pod.DeletionTimestamp != nil || node == "" || collides(pod, node, list.Items) {
			continue
		}
		errs = append(errs, api.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: node},
		}, metav1.CreateOptions{}))
		pod.Spec.NodeName = node
	}
	return errors.Join(errs...)
}

// wantedNode returns the node that the DaemonSet controller has written into the pod's
// affinity; "" if there is none.
func wantedNode(pod *corev1.Pod) string {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, field := range term.MatchFields {
			if field.Key == metav1.ObjectNameField && len(field.Values) == 1 {
				return field.Values[0]
			}
		}
	}
	return ""
}

func collides(pod *corev1.Pod, node string, pods []corev1.Pod) bool {
	ports := hostPorts(pod)
	for i := range pods {
		other := &pods[i]
		if other.UID == pod.UID || other.Spec.NodeName != node || !wants(other) && other.DeletionTimestamp == nil {
			continue
		}
		if slices.ContainsFunc(hostPorts(other), func(port int32) bool { return slices.Contains(ports, port) }) {
			return true
		}
	}
	return false
}

func hostPorts(pod *corev1.Pod) (ports []int32) {
	for _, c := range all(&pod.Spec) {
		for _, p := range c.Ports {
			if p.HostPort != 0 {
				ports = append(ports, p.HostPort)
			}
		}
	}
	return ports
}

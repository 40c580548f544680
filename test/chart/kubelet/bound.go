// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// wants reports whether a pod that is bound to the node should run.
func wants(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && !over(pod)
}

// over reports whether a pod has ended for good.
func over(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

// follow exchanges the state of node and pods with the API server until the power is
// off. What it said last remains true while it does not answer.
func (n *Node) follow(power context.Context) {
	var registered time.Time
	online := false
	why := ""
	for n.API != nil && sleep(power, 4*pace) == nil {
		ctx, cancel := context.WithTimeout(power, 5*time.Second)
		err := n.exchange(ctx, &registered)
		cancel()
		switch {
		case power.Err() != nil:
			return
		case err == nil && !online:
			n.record("", Online, nil)
		case err != nil && (online || why != err.Error()):
			n.record("", Offline, err)
			why = err.Error()
		}
		online = err == nil
	}
}

func (n *Node) exchange(ctx context.Context, registered *time.Time) error {
	err := n.register(ctx, registered)
	list, errList := n.API.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.Name})
	if errList != nil {
		return errors.Join(err, errList)
	}
	var assigned, gone []corev1.Pod
	n.mu.Lock()
	for _, pod := range list.Items {
		if pod.Spec.NodeName != n.Name {
			continue // a fake API server ignores the selector
		}
		assigned = append(assigned, pod)
		if w := n.workers[pod.UID]; pod.DeletionTimestamp != nil && (w == nil || w.hasEnded()) {
			gone = append(gone, pod)
		}
	}
	n.assigned = assigned
	n.mu.Unlock()
	errs := []error{err}
	for _, pod := range gone {
		now := int64(0)
		err := n.API.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &pod.UID},
		})
		if !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, n.report(ctx, assigned))...)
}

// SPDX-License-Identifier: Apache-2.0

// Package kubelet runs pods as a kubelet would, as processes of this machine, so
// that what a chart renders is executed byte for byte: command, arguments,
// environment, volumes, probes and end.
//
// Each container gets namespaces of its own for users, mounts and processes. It
// sees its image, its volumes, /proc and a small /dev; its root is read-only, it
// has no capability and cannot get one. The network is the host's. No root is
// needed: the user that the pod asks for is the caller under another number, so
// that a container cannot change to a second one.
//
// What this kubelet cannot do it refuses, instead of running a pod that is not
// quite the one it was given. It does not apply the seccomp profile and resource
// limits. It restarts nothing: [Pod.Trouble] says what a kubelet would have
// restarted.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// Options describe a [Kubelet].
type Options struct {
	// Bed is whose processes and directories the pods' are.
	Bed *testbed.Bed
	// API is the cluster's API server; nil on a node that has static pods only.
	API kubernetes.Interface
	// Images are those that the node has, by name without tag and digest.
	Images map[string]Image
}

// Image stands for a container image whose content is a single static binary.
type Image struct {
	// Binary is the file on this machine, and Path where it is in the image.
	Binary, Path string
	// Entrypoint runs if a container names no command.
	Entrypoint []string
}

// Kubelet is that of one node. Its methods are for the test's goroutine.
type Kubelet struct{ Options }

// New makes a kubelet that has no pods.
func New(o Options) *Kubelet { return &Kubelet{Options: o} }

// Run starts a pod: volumes, sidecars in their order, then the containers. The
// pod's name must be another one each time. Probes begin, and end with ctx or
// with [Pod.Terminate].
func (k *Kubelet) Run(ctx context.Context, pod *corev1.Pod) (*Pod, error) {
	if err := supported(&pod.Spec); err != nil {
		return nil, fmt.Errorf("pod %s: %w", pod.Name, err)
	}
	p := &Pod{Pod: pod, kubelet: k, dir: filepath.Join(k.Bed.Dir, "pods", pod.Name)}
	if err := p.run(ctx); err != nil {
		return nil, fmt.Errorf("pod %s: %w", pod.Name, err)
	}
	return p, nil
}

// ReadManifest reads a static pod, as it lies in a node's directory of
// manifests, and names it as a kubelet does: after its node. Unlike a kubelet it
// refuses what it does not know.
func ReadManifest(path, node string) (*corev1.Pod, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pod := new(corev1.Pod)
	if err := yaml.UnmarshalStrict(text, pod); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return nil, fmt.Errorf("%s holds a %s of %s, want a Pod of v1", path, pod.Kind, pod.APIVersion)
	}
	// kubelet/config/common.go, generatePodName and applyDefaults.
	pod.Name += "-" + node
	pod.Spec.NodeName = node
	if pod.Annotations == nil {
		pod.Annotations = make(map[string]string)
	}
	pod.Annotations["kubernetes.io/config.source"] = "file"
	return pod, nil
}

// supported looks for what would have to be ignored.
func supported(spec *corev1.PodSpec) error {
	var errs []error
	refuse := func(when bool, what string) {
		if when {
			errs = append(errs, errors.New(what))
		}
	}
	refuse(!spec.HostNetwork, "a network of its own is not supported")
	refuse(spec.HostPID || spec.HostIPC, "the host's processes and IPC are not supported")
	refuse(spec.DNSPolicy != corev1.DNSDefault, "no dnsPolicy but Default is supported")
	for _, c := range spec.InitContainers {
		always := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		refuse(!always, "no init container is supported but a sidecar: "+c.Name)
	}
	for _, c := range all(spec) {
		s := c.SecurityContext
		refuse(s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem, "a root that can be written is not supported: "+c.Name)
		refuse(s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation, "gaining privileges is not supported: "+c.Name)
		refuse(s == nil || s.Capabilities == nil || len(s.Capabilities.Add) > 0 || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL",
			"capabilities are not supported: "+c.Name)
		refuse(c.Lifecycle != nil, "a lifecycle hook is not supported: "+c.Name)
		refuse(len(c.EnvFrom) > 0, "envFrom is not supported: "+c.Name)
		for _, e := range c.Env {
			refuse(e.ValueFrom != nil, "a variable with valueFrom is not supported: "+c.Name+": "+e.Name)
		}
		for _, word := range append(c.Command, c.Args...) {
			refuse(strings.Contains(word, "$("), "a variable in an argument is not supported: "+word)
		}
		for _, m := range c.VolumeMounts {
			// A file that is mounted alone never changes: docs/install.md.
			refuse(m.SubPath != "" || m.SubPathExpr != "", "a subPath is not supported: "+m.MountPath)
		}
	}
	return errors.Join(errs...)
}

// all are sidecars and containers, in the order they are started.
func all(spec *corev1.PodSpec) []corev1.Container {
	return append(append([]corev1.Container(nil), spec.InitContainers...), spec.Containers...)
}

// image finds the image that a container names.
func (k *Kubelet) image(name string) (Image, error) {
	repository, _, _ := strings.Cut(name, "@")
	if i := strings.LastIndex(repository, ":"); i > strings.LastIndex(repository, "/") {
		repository = repository[:i]
	}
	image, ok := k.Images[repository]
	if !ok {
		return Image{}, fmt.Errorf("the node has no image %s", name)
	}
	return image, nil
}

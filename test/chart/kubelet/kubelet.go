// SPDX-License-Identifier: Apache-2.0

// Package kubelet runs pods as a kubelet would, as processes of this machine, so
// that a chart's output is executed byte for byte: command, arguments, environment,
// volumes, probes and termination.
//
// Each container gets its own namespaces for users, mounts and processes. It sees
// its image, its volumes, /proc and a small /dev; its root is read-only, it has no
// capability and cannot gain one. The network is the host's. Root is not needed: the
// pod's user is the caller mapped to another ID, so a container cannot change to a
// second user.
//
// This kubelet refuses what it cannot do, instead of running a different pod. It
// does not apply the seccomp profile and resource limits.
//
// A [Kubelet] runs the pods that a test gives it, one by one. It restarts nothing:
// [Pod.Trouble] reports what a kubelet would have restarted. A [Node] finds its pods
// itself, in its manifest directory and at the API server, and keeps them running.
package kubelet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// Options describe a [Kubelet].
type Options struct {
	// Bed owns the pods' processes and directories.
	Bed *testbed.Bed
	// API is the cluster's API server; nil on a node with static pods only.
	API kubernetes.Interface
	// Service is the API server's address as pods see it; "" if they do not.
	Service string
	// Images are the node's images, by name without tag and digest. Pull gets another
	// one; nil: there is no registry.
	Images map[string]Image
	Pull   func(name string) (Image, error)
	// Root is the directory in which pods find the paths of the host: a hostPath
	// /run/x is Root/run/x. Empty: the paths of this machine.
	Root string
}

// Image is a container image of static binaries.
type Image struct {
	// Binary is the file on this machine, and Path its path in the image.
	Binary, Path string
	// Others are further binaries: the files on this machine, by path in the image.
	Others map[string]string
	// Entrypoint runs if a container has no command.
	Entrypoint []string
}

// Kubelet is the kubelet of one node. Call its methods from the test's goroutine.
type Kubelet struct{ Options }

// New returns a kubelet without pods.
func New(o Options) *Kubelet { return &Kubelet{Options: o} }

// Run starts a pod: volumes, sidecars in order, then the containers. The pod's name
// must be new each time. Probes run until ctx is done or [Pod.Terminate].
func (k *Kubelet) Run(ctx context.Context, pod *corev1.Pod) (*Pod, error) {
	if err := supported(&pod.Spec); err != nil {
		return nil, fmt.Errorf("pod %s: %w", pod.Name, err)
	}
	p := &Pod{Pod: pod, kubelet: k, dir: filepath.Join(k.Bed.Dir, "pods", pod.Name), processes: pod.Name}
	if err := p.run(ctx); err != nil {
		return nil, fmt.Errorf("pod %s: %w", pod.Name, err)
	}
	return p, nil
}

// ReadManifest reads a static pod's manifest. It gives the pod the name and UID that
// a kubelet does: the name ends with the node's, the UID is a digest of the content.
// Unlike a kubelet it refuses unknown fields.
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
		return nil, fmt.Errorf("%s is a %s of %s, want a Pod of v1", path, pod.Kind, pod.APIVersion)
	}
	// kubelet/config/common.go, generatePodName and applyDefaults.
	content, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append(content, node+path...))
	pod.UID = types.UID(hex.EncodeToString(sum[:16]))
	pod.Name += "-" + node
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	pod.Spec.NodeName = node
	if pod.Annotations == nil {
		pod.Annotations = make(map[string]string)
	}
	pod.Annotations["kubernetes.io/config.source"] = "file"
	return pod, nil
}

// supported refuses fields that would have to be ignored.
func supported(spec *corev1.PodSpec) error {
	var errs []error
	refuse := func(when bool, what string) {
		if when {
			errs = append(errs, errors.New(what))
		}
	}
	refuse(spec.RestartPolicy == corev1.RestartPolicyOnFailure, "restartPolicy OnFailure is not supported")
	refuse(!spec.HostNetwork, "a separate network is not supported")
	refuse(spec.HostPID || spec.HostIPC, "the host's processes and IPC are not supported")
	refuse(spec.DNSPolicy != corev1.DNSDefault || spec.DNSConfig != nil, "only dnsPolicy Default without dnsConfig is supported")
	for _, c := range spec.InitContainers {
		always := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		refuse(!always, "only a sidecar is supported as an init container: "+c.Name)
	}
	for _, c := range all(spec) {
		s := c.SecurityContext
		refuse(s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem, "a writable root is not supported: "+c.Name)
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
			// A file mounted alone is never updated: docs/install.md.
			refuse(m.SubPath != "" || m.SubPathExpr != "", "a subPath is not supported: "+m.MountPath)
		}
	}
	return errors.Join(errs...)
}

// all returns sidecars and containers in the order in which they are started.
func all(spec *corev1.PodSpec) []corev1.Container {
	return append(append([]corev1.Container(nil), spec.InitContainers...), spec.Containers...)
}

// host returns the file on this machine that pods see as a path of the host.
func (k *Kubelet) host(path string) string { return filepath.Join(k.Root, path) }

// image finds the image of a container.
func (k *Kubelet) image(name string) (Image, error) {
	repository, _, _ := strings.Cut(name, "@")
	if i := strings.LastIndex(repository, ":"); i > strings.LastIndex(repository, "/") {
		repository = repository[:i]
	}
	if image, ok := k.Images[repository]; ok {
		return image, nil
	}
	if k.Pull == nil {
		return Image{}, fmt.Errorf("the node has no image %s", name)
	}
	return k.Pull(name)
}

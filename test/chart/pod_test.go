// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// mustBeHealthy waits until the pod is ready, and encrypts a seed.
func (s *stage) mustBeHealthy(pod *kubelet.Pod, trousseau *testbed.Trousseau) {
	s.t.Helper()
	took := s.Await(time.Minute, "the pod to be ready", pod.Ready)
	if err := trousseau.Ready(s.t.Context()); err != nil {
		s.t.Error(err)
	}
	if id := trousseau.KeyID(); !strings.Contains(id, "transit/"+testbed.Key+"/v") {
		s.t.Errorf("key_id %s", id)
	}
	if err := trousseau.RoundTrip(s.t.Context()); err != nil {
		s.t.Errorf("encrypting a seed: %v", err)
	}
	for _, spec := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		s.mustBeConfined(pod.Container(spec.Name))
	}
	s.Observe("%s: ready %s after its start, key_id %s", pod.Name, took.Round(time.Millisecond), trousseau.KeyID())
}

// mustBeConfined checks the process's privileges as reported by the kernel.
func (s *stage) mustBeConfined(c *kubelet.Container) {
	s.t.Helper()
	got, err := c.Status()
	if err != nil {
		s.t.Fatal(err)
	}
	const none = "0000000000000000"
	for name, want := range map[string]string{"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1"} {
		if got[name] != want {
			s.t.Errorf("%s: %s is %q, want %q", c.Name, name, got[name], want)
		}
	}
}

// mustFit compares a container's anonymous memory with its limit, which is not
// applied here, and returns it.
func (s *stage) mustFit(spec corev1.Container, c *kubelet.Container) string {
	s.t.Helper()
	status, err := c.Status()
	if err != nil {
		s.t.Fatal(err)
	}
	used, err := resource.ParseQuantity(strings.TrimSuffix(status["RssAnon"], " kB") + "Ki")
	if err != nil {
		s.t.Fatalf("%s: %v in %v", c.Name, err, status)
	}
	if limit := spec.Resources.Limits.Memory(); used.Cmp(*limit) > 0 {
		s.t.Errorf("%s uses %s of memory, its limit is %s", c.Name, &used, limit)
	}
	return fmt.Sprintf("%s %d Mi", spec.Name, used.Value()>>20)
}

// mustEnd terminates a pod that must have had no trouble.
func (s *stage) mustEnd(pod *kubelet.Pod) {
	s.t.Helper()
	if err := pod.Trouble(); err != nil {
		s.t.Error(err)
	}
	containers := append(pod.Spec.InitContainers, pod.Spec.Containers...)
	var memory []string
	for _, spec := range containers {
		memory = append(memory, s.mustFit(spec, pod.Container(spec.Name)))
	}
	took, err := pod.Terminate(s.t.Context())
	if err != nil {
		s.t.Error(err)
	}
	for _, spec := range containers {
		s.MustNotHaveLogged(pod.Container(spec.Name).Server)
	}
	s.Observe("%s: no reason for a restart; ended %s after SIGTERM, each container with exit code 0, no token in a log; memory: %s",
		pod.Name, took.Round(time.Millisecond), strings.Join(memory, ", "))
}

// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pod is a running or ended pod. Call its methods from the test's goroutine, except
// Ready and the function returned by Available. Those of a [Node]'s pods may be called
// from any goroutine, but not Terminate.
type Pod struct {
	*corev1.Pod

	kubelet   *Kubelet
	dir       string             // holds the pod's files on the node
	processes string             // begins the names of its processes
	stop      context.CancelFunc // ends the probes

	mu         sync.Mutex
	volumes    map[string]string // name→directory
	sidecars   []*Container
	containers []*Container
}

func (p *Pod) run(ctx context.Context) error {
	if err := p.Sync(ctx); err != nil {
		return err
	}
	probes, stop := context.WithCancel(ctx)
	p.stop = stop
	for _, spec := range p.Spec.InitContainers {
		if err := p.start(probes, spec, &p.sidecars); err != nil {
			return err
		}
	}
	for _, spec := range p.Spec.Containers {
		if err := p.start(probes, spec, &p.containers); err != nil {
			return err
		}
	}
	return nil
}

// start starts a container. A sidecar has started once its startup probe succeeds;
// the following containers wait for that (KEP-753).
func (p *Pod) start(probes context.Context, spec corev1.Container, to *[]*Container) error {
	box, err := p.box(spec)
	if err != nil {
		return fmt.Errorf("container %s: %w", spec.Name, err)
	}
	process, err := p.launch(spec.Name, box)
	if err != nil {
		return err
	}
	c := &Container{Server: process, spec: spec, env: box.Env}
	c.watch(probes)
	p.mu.Lock()
	*to = append(*to, c)
	p.mu.Unlock()
	if spec.RestartPolicy != nil && spec.StartupProbe != nil {
		return c.awaitStart(probes)
	}
	return nil
}

// awaitStart waits until the container has started.
func (c *Container) awaitStart(ctx context.Context) error {
	for deadline := time.Now().Add(time.Minute); ; {
		err := c.hasStarted(ctx)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		if err := sleep(ctx, pace); err != nil {
			return err
		}
	}
}

// pace is the interval at which this kubelet looks for changes.
const pace = 50 * time.Millisecond

// sleep returns an error if ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Container returns one of the pod's containers or sidecars.
func (p *Pod) Container(name string) *Container {
	for _, c := range p.everyone() {
		if c.spec.Name == name {
			return c
		}
	}
	return nil
}

func (p *Pod) everyone() []*Container {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Concat(p.sidecars, p.containers)
}

// Volume returns the directory on the node of the volume with this name; "" if there
// is none.
func (p *Pod) Volume(name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.volumes[name]
}

// Ready is a condition for [testbed.Bed.Await]: the pod's condition Ready would be
// true.
func (p *Pod) Ready(context.Context) error {
	_, err := p.readySince()
	return err
}

// Available is a condition for [testbed.Bed.Await]: the pod has been ready for the
// time required by its controller (minReadySeconds).
func (p *Pod) Available(minReady time.Duration) func(context.Context) error {
	return func(context.Context) error {
		since, err := p.readySince()
		if err == nil && time.Since(since) < minReady {
			err = fmt.Errorf("pod %s has been ready for %s, want %s", p.Name, time.Since(since).Round(time.Second), minReady)
		}
		return err
	}
}

func (p *Pod) readySince() (time.Time, error) {
	var last time.Time
	var errs []error
	containers := p.everyone()
	if len(containers) < len(all(&p.Spec)) {
		return last, fmt.Errorf("pod %s has not started", p.Name)
	}
	for _, c := range containers {
		since, err := c.readySince()
		if since.After(last) {
			last = since
		}
		errs = append(errs, err)
	}
	return last, errors.Join(errs...)
}

// Trouble returns why a kubelet would have restarted containers so far: an
// unexpected end or a failed liveness probe.
func (p *Pod) Trouble() error {
	var errs []error
	for _, c := range p.everyone() {
		errs = append(errs, c.trouble())
	}
	return errors.Join(errs...)
}

// Terminate ends the pod: SIGTERM to the containers and, when they have ended, to
// the sidecars in reverse order (KEP-753). A kubelet would kill the rest after the
// grace period: here that is an error, as is an exit code other than 0. It returns
// how long the termination took.
func (p *Pod) Terminate(ctx context.Context) (time.Duration, error) {
	p.stop()
	began := time.Now()
	inOrder := slices.Clone(p.sidecars)
	slices.Reverse(inOrder)
	inOrder = slices.Concat(p.containers, inOrder)
	var errs []error
	for _, c := range inOrder {
		c.Stop()
		if code := c.ExitCode(); code != 0 {
			errs = append(errs, fmt.Errorf("%s has ended with exit code %d", c.Name, code))
		}
	}
	took, grace := time.Since(began), p.grace()
	if took > grace {
		errs = append(errs, fmt.Errorf("pod %s took %s to end, its grace period is %s", p.Name, took, grace))
	}
	if !p.static() {
		now := int64(0)
		errs = append(errs, p.kubelet.API.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	}
	return took, errors.Join(errs...)
}

// grace is the pod's termination grace period.
func (p *Pod) grace() time.Duration {
	if s := p.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second // the API's default
}

// static reports whether the pod comes from a manifest.
func (p *Pod) static() bool { return p.Annotations["kubernetes.io/config.source"] == "file" }

func (p *Pod) path(elements ...string) string {
	return filepath.Join(append([]string{p.dir}, elements...)...)
}

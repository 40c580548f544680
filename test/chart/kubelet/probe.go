// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// errNotYet is the result before a probe has answered.
var errNotYet = errors.New("no probe has answered yet")

// watch starts the container's probes: the startup probe until it succeeds once,
// then the two others concurrently (pkg/kubelet/prober).
func (c *Container) watch(ctx context.Context) {
	ctx, c.silence = context.WithCancel(ctx)
	c.set(func() { c.started, c.ready, c.dead = errNotYet, errNotYet, nil })
	c.probes.Go(func() {
		startup, until := context.WithCancel(ctx)
		c.probe(startup, c.spec.StartupProbe, func(err error) {
			c.set(func() { c.started = err })
			if err == nil {
				until()
			}
		}, c.die("startup"))
		if ctx.Err() != nil {
			until()
			return
		}
		until()
		c.probes.Go(func() { c.probe(ctx, c.spec.LivenessProbe, func(error) {}, c.die("liveness")) })
		c.probe(ctx, c.spec.ReadinessProbe, c.becomeReady, func(err error) { c.set(func() { c.ready = err }) })
	})
}

func (c *Container) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func (c *Container) becomeReady(err error) {
	c.set(func() {
		switch {
		case err != nil && c.ready != nil:
			c.ready = err // the current result
		case err == nil && c.ready != nil:
			c.ready, c.since = nil, time.Now()
		}
	})
}

// die records that a probe has reached its failure threshold.
func (c *Container) die(probe string) func(error) {
	return func(err error) {
		c.set(func() { c.dead = fmt.Errorf("%s: its %s probe has failed too often: %w", c.Name, probe, err) })
	}
}

func (c *Container) hasStarted(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.started
}

func (c *Container) readySince() (time.Time, error) {
	running := c.Running()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !running:
		return time.Time{}, fmt.Errorf("%s has ended with exit code %d", c.Name, c.ExitCode())
	case c.ready != nil:
		return time.Time{}, fmt.Errorf("%s is not ready: %w", c.Name, c.ready)
	}
	return c.since, nil
}

func (c *Container) trouble() error {
	running := c.Running()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !running {
		return fmt.Errorf("%s has ended with exit code %d", c.Name, c.ExitCode())
	}
	return c.dead
}

// probe probes periodically until ctx is done. It passes every result to answered,
// and failures that reach failureThreshold in a row also to failed. Without a probe,
// the result is success.
func (c *Container) probe(ctx context.Context, probe *corev1.Probe, answered, failed func(error)) {
	if probe == nil {
		answered(nil)
		return
	}
	timer := time.NewTimer(time.Duration(probe.InitialDelaySeconds) * time.Second)
	defer timer.Stop()
	failures := int32(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(time.Duration(or(probe.PeriodSeconds, 10)) * time.Second)
		err := c.ask(ctx, probe)
		if ctx.Err() != nil {
			return
		}
		answered(err)
		if err == nil {
			failures = 0
			continue
		}
		if failures++; failures >= or(probe.FailureThreshold, 3) {
			failed(err)
		}
	}
}

// or returns the API's default for an unset value.
func or(value, other int32) int32 {
	if value == 0 {
		return other
	}
	return value
}

// client does not keep connections, like kubelet.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// ask runs one probe.
func (c *Container) ask(ctx context.Context, probe *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(or(probe.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	switch get := probe.HTTPGet; {
	case probe.Exec != nil:
		_, err := c.Exec(ctx, nil, probe.Exec.Command...) // pkg/probe/exec
		return err
	case get != nil && (get.Scheme == "" || get.Scheme == corev1.URISchemeHTTP):
		return request(ctx, get)
	default:
		return errors.New("only probes with exec, or httpGet with http, are supported")
	}
}

// request is an httpGet probe (pkg/probe/http).
func request(ctx context.Context, get *corev1.HTTPGetAction) error {
	host := get.Host
	if host == "" {
		host = "127.0.0.1" // the pod's address, which is the node's
	}
	page := url.URL{Scheme: "http", Host: net.JoinHostPort(host, get.Port.String()), Path: "/" + strings.TrimPrefix(get.Path, "/")}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page.String(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("%s answers %s", page.String(), resp.Status)
	}
	return nil
}

// Exec runs a command in the container's namespaces, with its root, user and
// environment, as `kubectl exec` and an exec probe do. It returns what the command
// prints. Unlike a runtime's, the command keeps its capabilities there if the user is
// root. nsenter(1) does it, because a process with threads, such as this one, cannot
// join a user namespace.
func (c *Container) Exec(ctx context.Context, stdin io.Reader, command ...string) (string, error) {
	pid, err := c.pid()
	if err != nil {
		return "", err
	}
	enter := []string{"--target=" + strconv.Itoa(pid), "--user", "--mount", "--pid", "--ipc", "--root", "--wd", "--preserve-credentials", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, command...)...)
	cmd.Env, cmd.Stdin = c.env, stdin
	// nsenter forks to enter the namespace of processes.
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("%q: %w: %s", command, err, out)
	}
	return string(out), err
}

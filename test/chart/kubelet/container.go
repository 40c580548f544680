// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// Container is one of a pod's containers, as a process of the bed with the bed's
// log.
type Container struct {
	*testbed.Server

	spec corev1.Container
	env  []string

	silence context.CancelFunc // ends the probes
	probes  sync.WaitGroup

	mu       sync.Mutex
	started  error     // why it has not started; nil if it has
	ready    error     // why it is not ready; nil if it is
	since    time.Time // when it became ready
	dead     error     // why a kubelet would have restarted it
	restarts int32
}

// launch starts a container's process.
func (p *Pod) launch(container string, b box) (*testbed.Server, error) {
	text, err := json.Marshal(b)
	if err != nil {
		panic(err) // strings and numbers can be encoded
	}
	file := p.path(container, "box.json")
	if err := write(file, text); err != nil {
		return nil, err
	}
	s := p.kubelet.Bed.NewServer(p.processes+"-"+container, self, superviseCommand, file)
	return s, s.TryStart()
}

func write(file string, content []byte) error {
	return errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, content, 0o600))
}

// box translates a container's specification for this machine.
func (p *Pod) box(spec corev1.Container) (box, error) {
	image, err := p.kubelet.image(spec.Image)
	if err != nil {
		return box{}, err
	}
	b := box{Root: p.path(spec.Name, "root"), Args: spec.Command, Env: []string{
		// Defaults set by runtimes if an image has none, the home of an unknown user
		// (runc's init_linux.go), and kubelet's own.
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "HOSTNAME=" + p.Spec.NodeName,
	}}
	if len(b.Args) == 0 {
		b.Args = image.Entrypoint
	}
	if len(b.Args) == 0 {
		return box{}, errors.New("neither the container nor its image names a command")
	}
	b.Args = append(b.Args[:len(b.Args):len(b.Args)], spec.Args...)
	// The API server's address in place of that of its Service, which nothing routes here.
	if api := p.kubelet.Service; api != "" {
		host, port, err := net.SplitHostPort(api)
		if err != nil {
			return box{}, err
		}
		b.Env = append(b.Env, "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port)
	}
	for _, e := range spec.Env {
		b.Env = slices.DeleteFunc(b.Env, func(given string) bool { return strings.HasPrefix(given, e.Name+"=") })
		b.Env = append(b.Env, e.Name+"="+e.Value)
	}
	if b.UID, b.GID, err = p.user(spec); err != nil {
		return box{}, err
	}
	b.Mounts = []mount{{Source: image.Binary, Target: image.Path, ReadOnly: true}}
	for path, file := range image.Others {
		b.Mounts = append(b.Mounts, mount{Source: file, Target: path, ReadOnly: true})
	}
	// With hostNetwork these are copies of the node's files.
	for _, path := range []string{"/etc/hosts", "/etc/resolv.conf"} {
		content, _ := os.ReadFile(path) // empty if the node has none
		if path == "/etc/hosts" {
			for _, alias := range p.Spec.HostAliases {
				content = fmt.Appendf(content, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
			}
		}
		own := p.path(filepath.Base(path))
		if err := write(own, content); err != nil {
			return box{}, err
		}
		b.Mounts = append(b.Mounts, mount{Source: own, Target: path, ReadOnly: true})
	}
	for _, m := range spec.VolumeMounts {
		dir := p.Volume(m.Name)
		if dir == "" {
			return box{}, fmt.Errorf("the pod has no volume %s", m.Name)
		}
		b.Mounts = append(b.Mounts, mount{Source: dir, Target: m.MountPath, ReadOnly: m.ReadOnly})
	}
	return b, os.MkdirAll(b.Root, 0o700)
}

// user returns the user and group that a container runs as.
func (p *Pod) user(spec corev1.Container) (uid, gid uint32, err error) {
	pod, own := p.Spec.SecurityContext, spec.SecurityContext
	if pod == nil || pod.RunAsUser == nil || own.RunAsUser != nil {
		return 0, 0, errors.New("set runAsUser in the pod, and no other in its containers")
	}
	if pod.RunAsNonRoot != nil && *pod.RunAsNonRoot && *pod.RunAsUser == 0 {
		return 0, 0, errors.New("runAsNonRoot is set, but the user is root")
	}
	if pod.RunAsGroup != nil {
		gid = uint32(*pod.RunAsGroup)
	}
	return uint32(*pod.RunAsUser), gid, nil
}

// Status returns the fields of /proc/PID/status of the container's main process,
// such as its capabilities and memory.
func (c *Container) Status() (map[string]string, error) {
	pid, err := c.pid()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	lines := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		lines[name] = strings.TrimSpace(value)
	}
	return lines, nil
}

// pid finds the process started by the supervisor.
func (c *Container) pid() (int, error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", c.PID()))
	if err != nil {
		return 0, err
	}
	for _, list := range lists {
		children, err := os.ReadFile(list)
		if err != nil {
			return 0, err
		}
		if child, err := strconv.Atoi(string(bytes.TrimSpace(children))); err == nil {
			return child, nil
		}
	}
	return 0, fmt.Errorf("%s has no process", c.Name)
}

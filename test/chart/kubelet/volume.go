// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
)

// Sync creates the pod's volumes, or updates those with external content, which a
// kubelet does about once a minute. ServiceAccount tokens are always replaced.
func (p *Pod) Sync(ctx context.Context) error {
	for _, v := range p.Spec.Volumes {
		dir, err := p.volume(ctx, v)
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		p.volumes[v.Name] = dir
	}
	return nil
}

func (p *Pod) volume(ctx context.Context, v corev1.Volume) (dir string, err error) {
	dir = p.path("volumes", v.Name)
	switch {
	case v.HostPath != nil:
		return v.HostPath.Path, hostPath(v.HostPath)
	case v.EmptyDir != nil:
		return dir, os.MkdirAll(dir, 0o700)
	}
	files, err := p.files(ctx, v)
	if err != nil {
		return "", err
	}
	p.project(dir, files)
	return dir, nil
}

// hostPath checks the path on the node as kubelet does (pkg/volume/hostpath).
func hostPath(v *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if v.Type != nil {
		kind = *v.Type
	}
	switch kind {
	case corev1.HostPathDirectory:
		info, err := os.Stat(v.Path)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a directory", v.Path)
		}
		return err
	case corev1.HostPathDirectoryOrCreate:
		return os.MkdirAll(v.Path, 0o755)
	default:
		return fmt.Errorf("a hostPath of type %q is not supported", kind)
	}
}

// file is a file written by kubelet.
type file struct {
	content string
	mode    int32 // mode of root's file
	own     bool  // belongs to the pod's user, not to root
}

// project writes the files of a volume with kubelet's symlink layout.
func (p *Pod) project(dir string, files map[string]file) {
	contents := make(map[string]string, len(files))
	for name, f := range files {
		contents[name] = f.content
	}
	p.kubelet.Bed.Project(dir, contents)
	for name, f := range files {
		// A failure here shows in the container that cannot read the file.
		_ = os.Chmod(filepath.Join(dir, name), p.seen(f))
	}
}

// seen returns the mode that gives the file's owner here (the caller, as whom the
// pod's user runs) the rights of the pod's user on a node. There the file belongs to
// root and, with an fsGroup, is readable by that group (pkg/volume/volume_linux.go).
func (p *Pod) seen(f file) os.FileMode {
	bits := f.mode
	c := p.Spec.SecurityContext
	switch {
	case f.own || c == nil || c.RunAsUser == nil || *c.RunAsUser == 0:
		bits >>= 6
	case c.FSGroup != nil:
		bits = bits>>3 | 0o4
	}
	return os.FileMode(bits&0o7) << 6
}

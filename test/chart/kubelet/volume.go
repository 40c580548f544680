// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// Sync creates the pod's volumes, or updates those with external content, which a
// kubelet does about once a minute. ServiceAccount tokens are always replaced.
func (p *Pod) Sync(ctx context.Context) error {
	volumes := make(map[string]string, len(p.Spec.Volumes))
	for _, v := range p.Spec.Volumes {
		dir, err := p.volume(ctx, v)
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		volumes[v.Name] = dir
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.volumes = volumes
	return nil
}

// lose removes what the pod keeps in memory, as a loss of power does.
func (p *Pod) lose() error {
	var errs []error
	for _, v := range p.Spec.Volumes {
		if v.EmptyDir != nil && v.EmptyDir.Medium != corev1.StorageMediumMemory || v.HostPath != nil {
			continue
		}
		errs = append(errs, os.RemoveAll(p.path("volumes", v.Name)))
	}
	return errors.Join(errs...)
}

func (p *Pod) volume(ctx context.Context, v corev1.Volume) (dir string, err error) {
	dir = p.path("volumes", v.Name)
	switch {
	case v.HostPath != nil:
		dir = p.kubelet.host(v.HostPath.Path)
		return dir, hostPath(dir, v.HostPath.Type)
	case v.EmptyDir != nil:
		// Whatever the umask is (pkg/volume/emptydir).
		return dir, errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o777))
	}
	files, err := p.files(ctx, v)
	if err != nil {
		return "", err
	}
	return dir, p.project(dir, files)
}

// hostPath checks a path on the node as kubelet does (pkg/volume/hostpath).
func hostPath(path string, want *corev1.HostPathType) error {
	kind := corev1.HostPathUnset
	if want != nil {
		kind = *want
	}
	switch kind {
	case corev1.HostPathDirectory:
		info, err := os.Stat(path)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a directory", path)
		}
		return err
	case corev1.HostPathFile:
		info, err := os.Stat(path)
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a file", path)
		}
		return err
	case corev1.HostPathDirectoryOrCreate:
		return os.MkdirAll(path, 0o755)
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
func (p *Pod) project(dir string, files map[string]file) error {
	contents := make(map[string]string, len(files))
	for name, f := range files {
		contents[name] = f.content
	}
	errs := []error{testbed.Project(dir, contents)}
	for name, f := range files {
		errs = append(errs, os.Chmod(filepath.Join(dir, name), p.seen(f)))
	}
	return errors.Join(errs...)
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

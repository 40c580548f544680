// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// enter turns this process, the first one in its namespaces, into the container. It
// returns only with an error, or if the box has no command.
func enter(file string) (int, error) {
	b, err := readBox(file)
	if err != nil {
		return 0, err
	}
	// Capabilities belong to a thread, and exec(2) keeps those of the calling thread.
	runtime.LockOSThread()
	unix.Umask(0o022)
	if err := b.furnish(); err != nil {
		return 0, err
	}
	if err := pivot(b.Root); err != nil {
		return 0, err
	}
	if err := confine(); err != nil {
		return 0, err
	}
	if len(b.Args) == 0 {
		return 0, nil
	}
	os.Clearenv()
	for _, e := range b.Env {
		name, value, _ := strings.Cut(e, "=")
		if err := os.Setenv(name, value); err != nil {
			return 0, err
		}
	}
	path, err := exec.LookPath(b.Args[0])
	if err != nil {
		return 0, err
	}
	return 0, syscall.Exec(path, b.Args, b.Env)
}

// furnish builds the container's root and makes it read-only.
func (b box) furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := mountAt(b.Root, "tmpfs", "mode=0755", 0); err != nil {
		return err
	}
	if err := mountAt(filepath.Join(b.Root, "proc"), "proc", "", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC); err != nil {
		return err
	}
	if err := mountAt(filepath.Join(b.Root, "dev"), "tmpfs", "mode=0755", 0); err != nil {
		return err
	}
	// A runtime makes these links (OCI runtime specification, "Dev symbolic links").
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", i), filepath.Join(b.Root, "dev", name)); err != nil {
			return err
		}
	}
	mounts := slices.Clone(b.Mounts)
	for _, name := range []string{"null", "zero", "full", "random", "urandom"} {
		mounts = append(mounts, mount{Source: "/dev/" + name, Target: "/dev/" + name})
	}
	// Mounts below other mounts come later.
	slices.SortStableFunc(mounts, func(a, b mount) int { return cmp.Compare(len(a.Target), len(b.Target)) })
	for _, m := range mounts {
		if err := m.bind(b.Root); err != nil {
			return fmt.Errorf("mounting %s at %s: %w", m.Source, m.Target, err)
		}
	}
	return readOnly(b.Root)
}

func mountAt(path, kind, data string, flags uintptr) error {
	err := os.MkdirAll(path, 0o755)
	if err == nil {
		err = unix.Mount(kind, path, kind, flags, data)
	}
	if err != nil {
		return fmt.Errorf("mounting %s: %w", kind, err)
	}
	return nil
}

func (m mount) bind(root string) error {
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	target := filepath.Join(root, m.Target)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else {
		err = os.WriteFile(target, nil, 0o600)
	}
	if err == nil {
		err = unix.Mount(m.Source, target, "", unix.MS_BIND|unix.MS_REC, "")
	}
	if err == nil && m.ReadOnly {
		err = readOnly(target)
	}
	return err
}

// readOnly makes a mount read-only, but not the mounts below it.
func readOnly(path string) error {
	return unix.MountSetattr(unix.AT_FDCWD, path, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// pivot makes root the process's root directory; see pivot_root(2).
func pivot(root string) error {
	err := os.Chdir(root)
	if err == nil {
		err = unix.PivotRoot(".", ".")
	}
	if err == nil {
		err = unix.Unmount(".", unix.MNT_DETACH)
	}
	if err == nil {
		err = os.Chdir("/")
	}
	if err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	return nil
}

// confine drops every capability and the ability to gain one: drop ALL and
// allowPrivilegeEscalation false.
func confine() error {
	for capability := uintptr(0); ; capability++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // the kernel has no further capabilities
		} else if err != nil {
			return fmt.Errorf("dropping capability %d: %w", capability, err)
		}
	}
	// Inheritable capabilities survive exec(2) by root, regardless of the bounding
	// set.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	err := errors.Join(
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0),
		unix.Capset(&header, &none[0]),
	)
	if err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}

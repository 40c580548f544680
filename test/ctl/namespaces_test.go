// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bufio"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// programVariable marks a test process that runs in namespaces. It holds the path of
// trousseauctl.
const programVariable = "TROUSSEAU_CTL_PROGRAM"

const needed = "it needs namespaces for users, mounts, processes and the network: as root, or with user.max_user_namespaces above 0 " +
	"and kernel.apparmor_restrict_unprivileged_userns 0; in a container, /proc must not be masked"

// again runs the test once more in its own namespaces: from there, nothing reaches
// the host's network, mounts and host name, and no process outlives it. The result
// becomes this test's.
func again(t *testing.T) {
	program, err := trousseauctl()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	if deadline, ok := t.Deadline(); ok {
		// Shorter than this process's deadline, so that it reports where it hangs.
		cmd.Args = append(cmd.Args, "-test.timeout="+(time.Until(deadline)*9/10).String())
	}
	cmd.Env = append(os.Environ(), programVariable+"="+program)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	// A child is killed when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		t.Skipf("%v: %s", err, needed)
	}
	skipped := false
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		t.Log(lines.Text())
		skipped = skipped || strings.HasPrefix(lines.Text(), "--- SKIP")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if skipped {
		t.SkipNow()
	}
}

// settle sets up addresses, and directories below /etc and /run, in the namespaces
// created by [again], whether or not the host has them.
func settle(t *testing.T, addrs, dirs []string) {
	t.Helper()
	if os.Getpid() != 1 { // the following must not run on a host
		t.Fatalf("%s is set, but not by this test", programVariable)
	}
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	if err == nil {
		err = listenAt(addrs)
	}
	for _, parent := range []string{"/etc", "/run"} {
		var own []string
		for _, dir := range dirs {
			if filepath.Dir(dir) == parent {
				own = append(own, filepath.Base(dir))
			}
		}
		if err == nil {
			err = cover(parent, own)
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("%v: %s", err, needed)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// listenAt starts the loopback interface and adds addresses to it.
func listenAt(addrs []string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return os.NewSyscallError("ioctl", err)
	}
	for i, addr := range addrs {
		// One alias for each; see netdevice(7).
		alias, err := unix.NewIfreq("lo:" + string(rune('1'+i)))
		if err != nil {
			return err
		}
		if err := alias.SetInet4Addr(netip.MustParseAddr(addr).AsSlice()); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, alias); err != nil {
			return os.NewSyscallError("ioctl", err)
		}
	}
	return nil
}

// cover mounts an empty directory over one of the host's. It links to all of the
// host's entries, which cannot be changed through the links, except for the
// directories that the test uses.
func cover(dir string, own []string) error {
	const below = ".host"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	host, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(host)
	// Removing anything here removes nothing of the host's.
	readOnly := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(host, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, readOnly); err != nil {
		return os.NewSyscallError("mount_setattr", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return os.NewSyscallError("mount", err)
	}
	for _, name := range append(own, below) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	if err := unix.MoveMount(host, "", unix.AT_FDCWD, filepath.Join(dir, below), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	for _, e := range entries {
		if slices.Contains(own, e.Name()) {
			continue
		}
		target := filepath.Join(below, e.Name())
		if e.Type() == fs.ModeSymlink { // the target may be relative
			if target, err = os.Readlink(filepath.Join(dir, below, e.Name())); err != nil {
				return err
			}
		}
		if err := os.Symlink(target, filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

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

// programVariable is how a test that runs in namespaces knows of it: it holds the
// path of trousseauctl.
const programVariable = "TROUSSEAU_CTL_PROGRAM"

const needed = "it needs namespaces for users, mounts, processes and the network: as root, or with user.max_user_namespaces above 0 " +
	"and kernel.apparmor_restrict_unprivileged_userns 0; in a container, /proc must not be masked"

// again executes the test once more, in namespaces of its own: nothing reaches the
// host's network, mounts and name from there, and no process outlives it. The
// outcome becomes this test's.
func again(t *testing.T) {
	program, err := trousseauctl()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	if deadline, ok := t.Deadline(); ok {
		// Sooner than this process, to say where it was.
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
	// The end of the thread that has started it is what kills a child.
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

// settle gives the namespaces that [again] has made the addresses, and directories
// below /etc and /run, be they on the host or not.
func settle(t *testing.T, addrs, dirs []string) {
	t.Helper()
	if os.Getpid() != 1 { // what follows is nothing for a host
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

// listenAt starts the loopback interface, and gives it further addresses.
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
		// See netdevice(7): an alias for each.
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

// cover puts an empty directory over one of the host's. It gets links to all that
// the host's has, which cannot be written through them, but for the directories
// that the test wants for itself.
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
	// Whatever is removed here, nothing of the host's is.
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
		if e.Type() == fs.ModeSymlink { // it may be relative
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

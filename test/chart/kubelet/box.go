// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// box describes a container for the process that becomes it.
type box struct {
	Root     string // an empty directory
	UID, GID uint32
	Mounts   []mount
	Args     []string // empty: set everything up and end
	Env      []string
}

// mount is a host file or directory mounted in a container.
type mount struct {
	Source, Target string
	ReadOnly       bool
}

// A container needs two processes, both of the program that called [Main]: a
// supervisor, and one in new namespaces that becomes the container. Each gets the
// file of its box.
const (
	self             = "/proc/self/exe"
	superviseCommand = "kubelet-supervise"
	enterCommand     = "kubelet-enter"
)

// Main must be called first by a program that uses a [Kubelet]. In a process started
// by a kubelet it does not return; in all others it does nothing.
func Main() {
	if len(os.Args) != 3 {
		return
	}
	var become func(string) (int, error)
	switch os.Args[1] {
	case superviseCommand:
		become = supervise
	case enterCommand:
		become = enter
	default:
		return
	}
	code, err := become(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubelet:", err)
		code = 128
	}
	os.Exit(code)
}

// Usable returns an error if the system does not permit containers for this user.
// The error says how to change that.
func Usable(dir string) error {
	root := filepath.Join(dir, "usable")
	text, err := json.Marshal(box{Root: root})
	if err != nil {
		return err
	}
	file := root + ".json"
	if err := errors.Join(os.MkdirAll(root, 0o700), os.WriteFile(file, text, 0o600)); err != nil {
		return err
	}
	out, err := exec.Command(self, superviseCommand, file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s(needs namespaces for users, mounts and processes: as root, or with user.max_user_namespaces above 0 "+
			"and kernel.apparmor_restrict_unprivileged_userns 0; in a container, /proc must not be masked)", err, out)
	}
	return nil
}

// supervise starts the container, forwards signals and returns its exit code. The
// container ends with this process.
func supervise(file string) (int, error) {
	b, err := readBox(file)
	if err != nil {
		return 0, err
	}
	// A child is killed when the thread that started it ends.
	runtime.LockOSThread()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	cmd := exec.Command(self, enterCommand, file)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: int(b.UID), HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: int(b.GID), HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
		// A user other than root would lose them with exec(2).
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP},
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("making a container: %w", err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may already have ended
		}
	}()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

func readBox(file string) (box, error) {
	var b box
	text, err := os.ReadFile(file)
	if err != nil {
		return b, err
	}
	return b, json.Unmarshal(text, &b)
}

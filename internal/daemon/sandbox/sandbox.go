// SPDX-License-Identifier: Apache-2.0

// Package sandbox drops access that the process does not need, so that an
// attacker who controls it gains less. What is dropped cannot be had again, by
// this process or any that it starts.
//
// Reading is not restricted: configuration may name other files at any time,
// and directories may be removed and created again. Nor are connections.
package sandbox

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// The names of these rights are those of landlock(7).
const (
	// writing is what DenyWriting denies.
	writing landlock.AccessFSSet = ll.AccessFSExecute | ll.AccessFSWriteFile | ll.AccessFSTruncate |
		ll.AccessFSRemoveDir | ll.AccessFSRemoveFile | ll.AccessFSMakeChar | ll.AccessFSMakeDir |
		ll.AccessFSMakeReg | ll.AccessFSMakeSock | ll.AccessFSMakeFifo | ll.AccessFSMakeBlock |
		ll.AccessFSMakeSym | ll.AccessFSIoctlDev | ll.AccessFSRefer

	// publishing is what remains in a socket's directory: a socket is bound
	// beside its path and renamed over it, where a stale one may be.
	publishing landlock.AccessFSSet = ll.AccessFSMakeSock | ll.AccessFSRemoveFile
)

// DenyWriting leaves the process unable to execute, create, change, truncate or
// remove any file, and to control any device, by means of Landlock (landlock(7)),
// which needs no privilege. In socketDirs, which must exist, it can still make,
// rename and remove sockets. Files that are open already stay as they are,
// standard error among them.
//
// It applies to all threads, and returns the kernel's version of Landlock. One
// below 5 cannot deny control of devices, one below 3 truncation: these remain
// possible. The error says why nothing is denied.
func DenyWriting(socketDirs ...string) (version int, err error) {
	if version, err = kernelVersion(); err != nil {
		return 0, err
	}
	config, err := landlock.NewConfig(writing)
	if err != nil {
		return 0, err
	}
	return version, config.BestEffort().RestrictPaths(landlock.PathAccess(publishing, socketDirs...))
}

// kernelVersion returns the version of Landlock that the kernel has, or says why
// it cannot be used. BestEffort alone would ignore that silently.
func kernelVersion() (int, error) {
	version, err := ll.LandlockGetABIVersion()
	switch {
	case errors.Is(err, syscall.ENOSYS):
		return 0, errors.New("this kernel has no Landlock; use Linux 5.13 or later")
	case errors.Is(err, syscall.EOPNOTSUPP):
		return 0, errors.New("this kernel's Landlock is off; add landlock to the kernel parameter lsm=")
	case err != nil:
		return 0, fmt.Errorf("querying Landlock, which a seccomp filter may forbid: %w", err)
	}
	return version, nil
}

// DenyDumps protects the memory of the process, and the secrets in it. Other
// processes of the same user can neither attach to it nor read /proc/PID/mem
// (PR_SET_DUMPABLE, prctl(2)), and a crash writes no core file: a core_pattern
// that is a program ignores the limit on core files (core(5)), but not the
// former. Root is not kept out. The process itself still sees /proc/self.
func DenyDumps() error {
	var errs []error
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		errs = append(errs, fmt.Errorf("making the process undumpable: %w", err))
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		errs = append(errs, fmt.Errorf("forbidding core files: %w", err))
	}
	return errors.Join(errs...)
}

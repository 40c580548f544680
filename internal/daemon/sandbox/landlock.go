// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// What Landlock can deny in a step, and what is left of it. The names are those of landlock(7).
const (
	writing landlock.AccessFSSet = ll.AccessFSExecute | ll.AccessFSWriteFile | ll.AccessFSTruncate |
		ll.AccessFSRemoveDir | ll.AccessFSRemoveFile | ll.AccessFSMakeChar | ll.AccessFSMakeDir | ll.AccessFSMakeReg |
		ll.AccessFSMakeSock | ll.AccessFSMakeFifo | ll.AccessFSMakeBlock | ll.AccessFSMakeSym | ll.AccessFSIoctlDev |
		refer

	// publishing is what a socket takes that is bound in a directory of its own: to be renamed over its path, where a
	// stale one may stand, and later removed, as that directory is.
	publishing landlock.AccessFSSet = ll.AccessFSMakeSock | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir | refer

	reading landlock.AccessFSSet = ll.AccessFSReadFile | ll.AccessFSReadDir | refer
	listing landlock.AccessFSSet = ll.AccessFSReadDir

	// refer is to rename from one directory to another. Every restriction denies it unless it says otherwise.
	refer = ll.AccessFSRefer
)

// referVersion is the first version of Landlock, that of Linux 5.19, that can allow a rename to another directory.
const referVersion = 2

// kernelVersion returns the version of Landlock that the kernel has, or says why it cannot be used. What a version
// before 5 cannot deny, truncating (3) and controlling devices (5), remains possible.
func kernelVersion() (int, error) {
	version, err := ll.LandlockGetABIVersion()
	switch {
	case errors.Is(err, syscall.ENOSYS):
		return 0, errors.New("this kernel has no Landlock")
	case errors.Is(err, syscall.EOPNOTSUPP):
		return 0, errors.New("this kernel's Landlock is switched off; add landlock to its parameter lsm=")
	case err != nil:
		return 0, fmt.Errorf("asking the kernel for Landlock, which a seccomp filter may forbid: %w", err)
	case version < referVersion:
		return 0, fmt.Errorf("this kernel has version %d of Landlock, which cannot allow the socket to be renamed; Linux 5.19 has the next", version)
	}
	return version, nil
}

// restrict denies all threads of the process, for good, what is in denied and not allowed by a rule.
func restrict(denied landlock.AccessFSSet, rules ...landlock.Rule) error {
	config, err := landlock.NewConfig(denied)
	if err != nil {
		return err
	}
	return config.BestEffort().RestrictPaths(rules...)
}

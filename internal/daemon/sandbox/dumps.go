// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// NoDumps keeps other processes of the same user out of this one's memory: they can neither attach to it nor read
// /proc/PID/mem (PR_SET_DUMPABLE, prctl(2)), and no core file is written when it crashes. A core_pattern that pipes
// into a program ignores the limit on core files, core(5), but not the former. Root is not kept out.
//
// The process itself still sees all of /proc/self.
func NoDumps() error {
	var errs []error
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		errs = append(errs, fmt.Errorf("making this process undumpable: %w", err))
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		errs = append(errs, fmt.Errorf("forbidding core files: %w", err))
	}
	return errors.Join(errs...)
}

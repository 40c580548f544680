// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

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

// SPDX-License-Identifier: Apache-2.0

// Package usage reads what a process uses, from /proc.
package usage

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// CPU returns the CPU time of a process's threads. A Go process does not end its
// threads, so the sum is complete.
func CPU(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		var ran time.Duration
		if _, err := fmt.Sscan(string(text), &ran); err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += ran
	}
	return sum, nil
}

// Resident is the size of a resident set, in MiB.
type Resident struct{ Now, Peak float64 }

// Memory returns the resident set of a process.
func Memory(pid int) (r Resident, err error) {
	fields, err := kib(fmt.Sprintf("/proc/%d/status", pid), "VmRSS", "VmHWM")
	if err != nil {
		return r, err
	}
	return Resident{Now: fields[0] / 1024, Peak: fields[1] / 1024}, nil
}

// Available returns how much memory of the machine is available, in MiB.
func Available() (float64, error) {
	fields, err := kib("/proc/meminfo", "MemAvailable")
	if err != nil {
		return 0, err
	}
	return fields[0] / 1024, nil
}

// kib reads fields like "VmRSS: 12 kB" from a file.
func kib(file string, names ...string) ([]float64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	values := make([]float64, len(names))
	for line := range strings.Lines(string(text)) {
		for i, name := range names {
			// The value stays zero on every other line.
			_, _ = fmt.Sscanf(line, name+": %f kB", &values[i])
		}
	}
	return values, nil
}

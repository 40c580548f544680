// SPDX-License-Identifier: Apache-2.0

package sandbox_test

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sys/unix"
)

// Operations of a child on itself.

type state struct {
	Dumpable int
	Core     unix.Rlimit
	Metrics  map[string]float64
}

// processState returns a state as JSON.
func processState() (string, error) {
	s := state{Metrics: make(map[string]float64)}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return "", err
	}
	s.Dumpable = dumpable
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &s.Core); err != nil {
		return "", err
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})); err != nil {
		return "", err
	}
	families, err := registry.Gather()
	if err != nil {
		return "", err
	}
	for _, f := range families {
		m := f.GetMetric()[0]
		s.Metrics[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	text, err := json.Marshal(s)
	return string(text), err
}

// state asks the child for its processState.
func (c *child) state() (s state) {
	c.t.Helper()
	if err := json.Unmarshal([]byte(c.do("process")), &s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// createOnThreads tries to create a file on each of many threads. Its error is that of the last thread that failed, nil
// unless all failed.
func createOnThreads(file string) error {
	const threads = 20
	var (
		creating, begun sync.WaitGroup
		mu              sync.Mutex
		failure         error
		failures        int
	)
	begun.Add(threads)
	for i := range threads {
		creating.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			begun.Done()
			begun.Wait() // so that each goroutine has its own thread
			if err := os.WriteFile(file+strconv.Itoa(i), nil, 0o600); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failure = err
				failures++
			}
		})
	}
	creating.Wait()
	if failures < threads {
		return nil
	}
	return failure
}

// hideLandlock makes the kernel answer every Landlock query with errno.
func hideLandlock(errno syscall.Errno) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	const nr = 0 // the offset of the system call's number in struct seccomp_data
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_LANDLOCK_CREATE_RULESET, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&filter)))
	if e != 0 {
		return fmt.Errorf("seccomp: %w", e)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/daemon/kms"
)

// A role runs the test binary as another process, to measure the server's cost
// without its clients.
const roleVariable = "KMS_TEST_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleVariable) {
	case "server":
		err = playServer(os.Args[1])
	case "attacker":
		err = playAttacker(os.Args[1], os.Args[2])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// playServer serves at path until stdin ends. For each line on stdin it prints its
// number of goroutines and its peak memory in bytes since the last line.
func playServer(path string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := kms.New(kms.Options{KEK: working(), RequestTimeout: time.Minute})
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	fmt.Println("ok")
	lines := make(chan struct{})
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- struct{}{}
		}
	}()
	sample := time.NewTicker(5 * time.Millisecond)
	defer sample.Stop()
	peak := memory()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("Serve has ended: %w", err)
		case <-sample.C:
			peak = max(peak, memory())
		case _, ok := <-lines:
			if !ok {
				return nil
			}
			fmt.Println(runtime.NumGoroutine(), max(peak, memory()))
			peak = 0
		}
	}
}

// memory returns the memory obtained from the system for heap, stacks and so on,
// without the race detector's own.
func memory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// process is this binary in a role.
type process struct {
	stdin io.WriteCloser
	lines *bufio.Scanner
	cmd   *exec.Cmd
}

// play starts a role and waits until it reports ready.
func play(t *testing.T, role string, args ...string) *process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	// The race detector would sleep for a second at the end.
	cmd.Env = append(os.Environ(), roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{stdin: stdin, lines: bufio.NewScanner(stdout), cmd: cmd}
	t.Cleanup(p.end)
	if got := p.line(t); got != "ok" {
		t.Fatalf("%s: %s", role, got)
	}
	return p
}

func (p *process) line(t *testing.T) string {
	t.Helper()
	if !p.lines.Scan() {
		t.Fatalf("the child ended without a word: %v", p.lines.Err())
	}
	return p.lines.Text()
}

func (p *process) end() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// serverProcess is a server in a separate process.
type serverProcess struct {
	*process
	path string // of its socket
}

func startServer(t *testing.T) *serverProcess {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kms.sock")
	return &serverProcess{play(t, "server", path), path}
}

// cost holds the server's resources.
type cost struct {
	goroutines int
	files      int
	memory     int // MiB; the peak since the last question
}

func (s *serverProcess) cost(t *testing.T) (c cost) {
	t.Helper()
	fmt.Fprintln(s.stdin)
	line := s.line(t)
	if _, err := fmt.Sscan(line, &c.goroutines, &c.memory); err != nil {
		t.Fatalf("the server says %q: %v", line, err)
	}
	c.memory >>= 20
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	c.files = len(files)
	return c
}

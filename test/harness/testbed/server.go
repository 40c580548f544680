// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopWithin bounds the time from SIGTERM to the end of a server. kube-apiserver is
// the slowest, because it lets its requests finish.
const stopWithin = 60 * time.Second

// Server is a process with a fixed command line. It can be stopped and started again
// with the same ports and data. Only Log, PID, Running, TryStart and End may be called
// concurrently, the last two not at the same time.
type Server struct {
	// Name is unique within the bed. The log file is Dir/log/<Name>.log.
	Name string
	// Args may be changed while the server is not running.
	Args []string

	bed  *Bed
	path string

	mu  sync.Mutex
	run *run // the last one, nil before the first
}

// run is one run of a server, from start to end.
type run struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // how it ended; set before ended is closed
}

func (b *Bed) newServer(name, path string, args ...string) *Server {
	s := &Server{Name: name, Args: args, bed: b, path: path}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.servers = append(b.servers, s)
	return s
}

// all returns the servers so far.
func (b *Bed) all() []*Server {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.servers)
}

// tool returns the path of a binary built by test/tools/build.
func (b *Bed) tool(name string) string { return filepath.Join(b.tools, name) }

// environment returns the environment of all processes. Nothing is inherited from
// the caller, so that no VAULT_TOKEN, KUBECONFIG or proxy affects the tests.
func (b *Bed) environment(more ...string) []string {
	return append([]string{
		"PATH=" + b.tools + ":/usr/local/bin:/usr/bin:/bin",
		"HOME=" + filepath.Join(b.Dir, "home"), // the vault command keeps tokens there
		"TMPDIR=" + b.Dir,
	}, more...)
}

// Start starts the server and returns at once. The caller waits until it is ready.
func (s *Server) Start() {
	s.bed.t.Helper()
	if err := s.TryStart(); err != nil {
		s.bed.t.Fatal(err)
	}
}

// TryStart is Start that returns an error.
func (s *Server) TryStart() error {
	if s.Running() {
		return fmt.Errorf("%s is already running", s.Name)
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// The process has its own descriptor.
	defer log.Close()
	r := &run{cmd: exec.CommandContext(s.bed.ctx, s.path, s.Args...), ended: make(chan struct{})}
	r.cmd.Env = s.bed.environment()
	r.cmd.Dir = s.bed.Dir
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if err := s.bed.launcher.start(r.cmd); err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.ended)
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run = r
	return nil
}

func (s *Server) last() *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run
}

// Running reports whether the process is running.
func (s *Server) Running() bool {
	r := s.last()
	if r == nil {
		return false
	}
	select {
	case <-r.ended:
		return false
	default:
		return true
	}
}

// PID returns the process ID, even after the process has ended; 0 before the first
// start.
func (s *Server) PID() int {
	r := s.last()
	if r == nil {
		return 0
	}
	return r.cmd.Process.Pid
}

// Kill ends the process with SIGKILL, as a crash would, and waits until it is gone.
func (s *Server) Kill() {
	s.bed.t.Helper()
	if !s.Running() {
		s.bed.t.Fatalf("%s cannot be killed: it is not running", s.Name)
	}
	s.end()
}

// end kills the process if it is running.
func (s *Server) end() {
	if r := s.last(); r != nil {
		// The only possible error is that the process has already ended.
		_ = r.cmd.Process.Kill()
		<-r.ended
	}
}

// Stop ends the process with SIGTERM, as an operator would. It waits until the
// process is gone and returns how long that took.
func (s *Server) Stop() time.Duration {
	s.bed.t.Helper()
	if !s.Running() {
		s.bed.t.Fatalf("%s cannot be stopped: it is not running", s.Name)
	}
	r, began := s.last(), time.Now()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.bed.t.Fatalf("stopping %s: %v", s.Name, err)
	}
	select {
	case <-r.ended:
	case <-time.After(stopWithin):
		s.bed.t.Fatalf("%s has not ended %s after SIGTERM", s.Name, stopWithin)
	}
	return time.Since(began)
}

// End ends the process, if it runs, with SIGTERM, and with SIGKILL after the grace
// period or once ctx is done. It waits until the process is gone.
func (s *Server) End(ctx context.Context, grace time.Duration) {
	if !s.Running() {
		return
	}
	r := s.last()
	if ctx.Err() == nil {
		// The only possible error is that the process has already ended.
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-r.ended:
	case <-timer.C:
	case <-ctx.Done():
	}
	s.end()
}

// Log returns the output of all runs of the server.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Logged is a condition for [Bed.Await]: the log contains the text after its first
// from bytes.
func (s *Server) Logged(from int, text string) func(context.Context) error {
	return func(context.Context) error {
		if log := s.Log(); len(log) < from || !strings.Contains(log[from:], text) {
			return fmt.Errorf("%s has not logged %q", s.Name, text)
		}
		return nil
	}
}

// mustNotHaveLogged fails the test if the log contains one of the secrets or a
// token of Vault.
func (s *Server) mustNotHaveLogged(secrets []string) {
	s.bed.t.Helper()
	if s.last() == nil {
		return
	}
	log := s.Log()
	contained := func(secret string) bool { return strings.Contains(log, secret) }
	if HoldsToken(log) || slices.ContainsFunc(secrets, contained) {
		s.bed.t.Errorf("%s has logged a secret", s.Name)
	}
}

func (s *Server) logFile() string {
	return filepath.Join(s.bed.Dir, "log", s.Name+".log")
}

// PIDs returns the IDs of all running processes, by name. Two equal results mean
// that nothing was restarted in between.
func (b *Bed) PIDs() map[string]int {
	pids := make(map[string]int)
	for _, s := range b.all() {
		if s.Running() {
			pids[s.Name] = s.PID()
		}
	}
	return pids
}

// MustBeSameProcesses fails the test unless the running processes are exactly those
// in before, an earlier result of [Bed.PIDs].
func (b *Bed) MustBeSameProcesses(before map[string]int) {
	b.t.Helper()
	if now := b.PIDs(); !maps.Equal(now, before) {
		b.t.Errorf("processes were %v, now they are %v: want none restarted", before, now)
	}
}

// showLogs logs the end of every server's log.
func (b *Bed) showLogs() {
	const lines = 25
	for _, s := range b.all() {
		if s.last() == nil {
			continue
		}
		end := "still running"
		if !s.Running() {
			end = fmt.Sprintf("ended (%v)", s.last().err)
		}
		text := slices.Collect(strings.Lines(s.Log()))
		b.t.Logf("%s: %s; the last of %d lines of its log:\n%s", s.Name, end, len(text),
			strings.Join(text[max(0, len(text)-lines):], ""))
	}
}

// command runs a program and returns its standard output. An error includes its
// standard error.
func (b *Bed) command(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if cmd.Dir == "" {
		cmd.Dir = b.Dir
	}
	err := b.launcher.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(cmd.Path), strings.Join(cmd.Args[1:], " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// launcher starts processes from one thread that lives as long as the bed. The
// kernel kills them when that thread ends (PR_SET_PDEATHSIG, prctl(2)), so none
// survives the tests, however those end.
type launcher struct {
	ctx      context.Context
	requests chan func()
}

func newLauncher(ctx context.Context) *launcher {
	l := &launcher{ctx: ctx, requests: make(chan func())}
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		for {
			select {
			case request := <-l.requests:
				request()
			case <-ctx.Done():
				return
			}
		}
	}()
	return l
}

func (l *launcher) start(cmd *exec.Cmd) error {
	// Ctrl-C in the terminal is for the tests, which then end the servers.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	select {
	case l.requests <- func() { started <- cmd.Start() }:
		return <-started
	case <-l.ctx.Done():
		return errors.New("the scenario has ended")
	}
}

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

// stopWithin is how long a server may take to end after SIGTERM. kube-apiserver
// takes the longest, since it lets its requests finish.
const stopWithin = 60 * time.Second

// Server is a process with a fixed command line. It can be ended and started
// again, with the same ports and data. Its methods are for one goroutine, but
// for Log, PID and Running.
type Server struct {
	// Name is unique within the bed; the log is Dir/log/<Name>.log.
	Name string
	// Args may be changed while the server does not run.
	Args []string

	bed  *Bed
	path string

	mu  sync.Mutex
	run *run // the last one, nil before the first
}

// run is one life of a server.
type run struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // how it ended; set before ended is closed
}

func (b *Bed) newServer(name, path string, args ...string) *Server {
	s := &Server{Name: name, Args: args, bed: b, path: path}
	b.servers = append(b.servers, s)
	return s
}

// tool is the path of a binary that test/tools/build has built.
func (b *Bed) tool(name string) string { return filepath.Join(b.tools, name) }

// environment is all that processes inherit: nothing of the caller's, so that
// no VAULT_TOKEN, KUBECONFIG or proxy changes what is tested.
func (b *Bed) environment(more ...string) []string {
	return append([]string{
		"PATH=" + b.tools + ":/usr/local/bin:/usr/bin:/bin",
		"HOME=" + filepath.Join(b.Dir, "home"), // the vault command keeps tokens there
		"TMPDIR=" + b.Dir,
	}, more...)
}

// Start executes the server and returns at once; whether it is good for
// something is for the caller to await.
func (s *Server) Start() {
	s.bed.t.Helper()
	if s.Running() {
		s.bed.t.Fatalf("%s is started twice", s.Name)
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.bed.t.Fatal(err)
	}
	// The process has a descriptor of its own.
	defer log.Close()
	r := &run{cmd: exec.CommandContext(s.bed.ctx, s.path, s.Args...), ended: make(chan struct{})}
	r.cmd.Env = s.bed.environment()
	r.cmd.Dir = s.bed.Dir
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if err := s.bed.launcher.start(r.cmd); err != nil {
		s.bed.t.Fatalf("starting %s: %v", s.Name, err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.ended)
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run = r
}

func (s *Server) last() *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run
}

// Running reports whether the process is there.
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

// PID is the process's id, also after its end; 0 before the first start.
func (s *Server) PID() int {
	r := s.last()
	if r == nil {
		return 0
	}
	return r.cmd.Process.Pid
}

// Kill ends the process as a crash of the machine would (SIGKILL), and returns
// when it is gone.
func (s *Server) Kill() {
	s.bed.t.Helper()
	if !s.Running() {
		s.bed.t.Fatalf("%s is to be killed, but does not run", s.Name)
	}
	s.end()
}

// end kills the process if there is one.
func (s *Server) end() {
	if r := s.last(); r != nil {
		// Its only error is that the process has ended.
		_ = r.cmd.Process.Kill()
		<-r.ended
	}
}

// Stop ends the process as an operator would (SIGTERM), and returns when it is
// gone and how long that took.
func (s *Server) Stop() time.Duration {
	s.bed.t.Helper()
	if !s.Running() {
		s.bed.t.Fatalf("%s is to be stopped, but does not run", s.Name)
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

// Log is everything that all runs of the server have written.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Logged is met when the log holds the text, after its first from bytes; see
// [Bed.Await].
func (s *Server) Logged(from int, text string) func(context.Context) error {
	return func(context.Context) error {
		if log := s.Log(); len(log) < from || !strings.Contains(log[from:], text) {
			return fmt.Errorf("%s has not logged %q", s.Name, text)
		}
		return nil
	}
}

// mustNotHaveLogged fails the test if one of the secrets, or what any token of
// Vault's begins with, stands in the log.
func (s *Server) mustNotHaveLogged(secrets []string) {
	s.bed.t.Helper()
	if s.last() == nil {
		return
	}
	log := s.Log()
	for _, secret := range append([]string{"hvs.", "hvb."}, secrets...) {
		if strings.Contains(log, secret) {
			s.bed.t.Errorf("%s has logged a secret", s.Name)
		}
	}
}

func (s *Server) logFile() string {
	return filepath.Join(s.bed.Dir, "log", s.Name+".log")
}

// PIDs are the ids of all processes that run, by name. Two equal answers mean
// that nothing was restarted in between.
func (b *Bed) PIDs() map[string]int {
	pids := make(map[string]int)
	for _, s := range b.servers {
		if s.Running() {
			pids[s.Name] = s.PID()
		}
	}
	return pids
}

// MustBeSameProcesses fails the test unless exactly the processes of before, an
// answer of [Bed.PIDs], still run.
func (b *Bed) MustBeSameProcesses(before map[string]int) {
	b.t.Helper()
	if now := b.PIDs(); !maps.Equal(now, before) {
		b.t.Errorf("processes were %v, now they are %v: want none restarted", before, now)
	}
}

// showLogs quotes the end of every server's log.
func (b *Bed) showLogs() {
	const lines = 25
	for _, s := range b.servers {
		if s.last() == nil {
			continue
		}
		end := "it runs"
		if !s.Running() {
			end = fmt.Sprintf("it has ended (%v)", s.last().err)
		}
		text := slices.Collect(strings.Lines(s.Log()))
		b.t.Logf("%s: %s; the last of %d lines of its log:\n%s", s.Name, end, len(text),
			strings.Join(text[max(0, len(text)-lines):], ""))
	}
}

// command runs a program to its end and returns what it printed. What it wrote
// to standard error becomes part of the error.
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
	// A Ctrl-C in the terminal is for the tests; their end is that of the servers.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	select {
	case l.requests <- func() { started <- cmd.Start() }:
		return <-started
	case <-l.ctx.Done():
		return errors.New("the scenario has ended")
	}
}

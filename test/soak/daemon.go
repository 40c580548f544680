// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
	"github.com/trousseau-io/trousseau/test/harness/plugin"
)

const (
	// maxFiles is trousseau's hard limit for open files.
	maxFiles = 256
	// stopWithin bounds the time from SIGTERM to the end of the process:
	// --drain-timeout is 5 seconds, plus a margin for a busy machine.
	stopWithin = 10 * time.Second
)

// settings shorten intervals, so that reactions that usually take minutes happen
// within a fault.
var settings = []string{
	// The grace is longer than a proof may take, which is 10 s by default.
	"--probe-interval=2s", "--outage-grace=11s", "--max-vault-requests=1", "--config-poll-interval=5s", "--log-level=debug",
}

// daemon is trousseau: one process, or two during a takeover. Its methods may be
// called concurrently.
type daemon struct {
	binary, config, socket string
	ops                    *loopback.Port
	log                    *os.File
	unexpected             func(error) // called when a process ends unexpectedly

	mu        sync.Mutex
	current   *child // nil if there is none
	successor *child // nil unless a takeover is in progress
	starts    int
	watching  sync.WaitGroup
}

// child is a process started by the soak.
type child struct {
	cmd   *exec.Cmd
	began time.Time
	asked bool          // told to end or killed; guarded by daemon.mu
	ended chan struct{} // closed when the process has ended
	err   error         // how it ended; set before ended is closed
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// newDaemon prepares trousseau. Its log is in dir.
func newDaemon(binary, dir, config, socket string, unexpected func(error)) (*daemon, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	d := &daemon{binary: binary, config: config, socket: socket, unexpected: unexpected}
	if d.ops, err = loopback.Reserve(""); err != nil {
		return nil, err
	}
	d.log, err = os.OpenFile(filepath.Join(dir, "trousseau.log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	return d, err
}

// start starts the process and does not wait.
func (d *daemon) start() (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current, err = d.launch()
	return err
}

// takeOver starts a second process. Once it owns the socket, the first one is told
// to end.
func (d *daemon) takeOver() (err error) {
	d.awaitSocket()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.successor != nil {
		// The previous successor has not proven itself yet, and now it is too late.
		d.signal(d.successor, syscall.SIGKILL)
	}
	if d.successor, err = d.launch("--takeover"); err != nil {
		return err
	}
	next := d.successor
	d.watching.Go(func() { d.succeed(next) })
	return nil
}

// succeed waits until next has the socket and then ends the previous process.
func (d *daemon) succeed(next *child) {
	for !d.owns(next) {
		select {
		case <-next.ended:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	d.mu.Lock()
	before := d.current
	if d.successor != next {
		d.mu.Unlock()
		return
	}
	d.current, d.successor = next, nil
	d.signal(before, syscall.SIGTERM)
	d.mu.Unlock()
	if err := awaitEnd(before); err != nil {
		d.unexpected(err)
	}
}

func (d *daemon) owns(c *child) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	owner, err := plugin.Owner(ctx, d.socket)
	return err == nil && owner == c.pid()
}

// awaitSocket waits, a few seconds at most, until the process that was started last
// accepts connections. Otherwise two processes that start together would both find
// the socket free.
func (d *daemon) awaitSocket() {
	for range 200 {
		d.mu.Lock()
		current := d.current
		d.mu.Unlock()
		if current == nil || d.owns(current) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// settled returns nil if there is exactly one process and it has the socket.
func (d *daemon) settled() error {
	d.mu.Lock()
	current, successor := d.current, d.successor
	d.mu.Unlock()
	switch {
	case current == nil:
		return errors.New("trousseau is not running")
	case successor != nil:
		return fmt.Errorf("process %d has not taken over from %d", successor.pid(), current.pid())
	case !d.owns(current):
		return fmt.Errorf("process %d does not have the socket", current.pid())
	}
	return nil
}

// kill ends every process at once.
func (d *daemon) kill() {
	for _, c := range d.end(syscall.SIGKILL) {
		<-c.ended
	}
}

// stop tells every process to end. It returns an error unless each exits with code
// 0.
func (d *daemon) stop() (err error) {
	d.awaitSocket()
	for _, c := range d.end(syscall.SIGTERM) {
		err = errors.Join(err, awaitEnd(c))
	}
	return err
}

// end signals all processes and returns them.
func (d *daemon) end(s syscall.Signal) (all []*child) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range []*child{d.current, d.successor} {
		if c != nil {
			d.signal(c, s)
			all = append(all, c)
		}
	}
	d.current, d.successor = nil, nil
	return all
}

// awaitEnd waits for a process to end after SIGTERM.
func awaitEnd(c *child) error {
	select {
	case <-c.ended:
	case <-time.After(stopWithin):
		_ = c.cmd.Process.Kill()
		<-c.ended
		return violatedf("trousseau (pid %d) did not end within %s of SIGTERM", c.pid(), stopWithin)
	}
	// A process that has just started may not have installed its signal handler yet.
	if c.err != nil && time.Since(c.began) > 2*time.Second {
		return violatedf("trousseau (pid %d) ended with %v after SIGTERM", c.pid(), c.err)
	}
	return nil
}

// signal sends a signal that ends a process. The caller holds d.mu.
func (d *daemon) signal(c *child, s syscall.Signal) {
	c.asked = true
	// The only possible error is that the process has already ended.
	_ = c.cmd.Process.Signal(s)
}

// launch starts a process. The caller holds d.mu.
func (d *daemon) launch(flags ...string) (*child, error) {
	// The shell lowers its own limit and then executes trousseau.
	args := append([]string{
		"-c", `ulimit -n "$0" && exec "$@"`, fmt.Sprint(maxFiles), d.binary,
		"--config-file-path=" + d.config, "--listen-addr=unix://" + d.socket, "--ops-addr=" + d.ops.Addr,
	}, append(settings, flags...)...)
	c := &child{cmd: exec.CommandContext(context.Background(), "sh", args...), began: time.Now(), ended: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = d.log, d.log
	// Ctrl-C in the terminal is for the soak, which then ends trousseau.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting trousseau: %w", err)
	}
	d.starts++
	d.watching.Go(func() {
		c.err = c.cmd.Wait()
		close(c.ended)
		d.mu.Lock()
		asked := c.asked
		d.mu.Unlock()
		if !asked {
			d.unexpected(violatedf("trousseau (pid %d) ended unexpectedly: %v", c.pid(), c.err))
		}
	})
	return c, nil
}

// pid returns the PID of the process that has the socket or will take it, and how
// many processes have been started. The PID is 0 if there is none.
func (d *daemon) pid() (pid, starts int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil {
		return 0, d.starts
	}
	return d.current.pid(), d.starts
}

// dump ends every process with the stacks of its goroutines in the log.
func (d *daemon) dump() {
	for _, c := range d.end(syscall.SIGQUIT) {
		select {
		case <-c.ended:
		case <-time.After(stopWithin):
			_ = c.cmd.Process.Kill()
		}
	}
}

// close kills all remaining processes.
func (d *daemon) close() error {
	d.kill()
	d.watching.Wait()
	d.ops.Release()
	return d.log.Close()
}

// SPDX-License-Identifier: Apache-2.0

// Package plugin runs the trousseau binary as a process of its own, and looks at
// what it shows to an operator: its log, its ops endpoints and the owner of its
// socket.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
	"github.com/trousseau-io/trousseau/test/harness/pages"
)

const (
	// startWithin bounds how long the socket may take to appear: starting asks
	// nobody, Vault least of all.
	startWithin = 10 * time.Second
	// stopWithin is how long the process may take to end after SIGTERM before
	// it is killed; the binary's own --drain-timeout is 5 seconds.
	stopWithin = 8 * time.Second
)

// Options say which binary to run, and how.
type Options struct {
	// Binary is the path of the trousseau binary.
	Binary string
	// Dir is a directory of the process's own, best with mode 0700: config.yaml,
	// kms.sock and trousseau.log are in it.
	Dir string
	// Args are further flags.
	Args []string
}

// Process is a running trousseau. Its methods may be called concurrently.
type Process struct {
	dir   string
	ops   *pages.Client
	cmd   *exec.Cmd
	ended chan struct{} // closed once the process has ended
	err   error         // how it ended; set before ended is closed
}

// Start starts the binary and returns once its socket takes connections, which
// needs neither Vault nor config.yaml. The process is ended when ctx is done, or
// with [Process.Stop], which also tells how it ended.
func Start(ctx context.Context, o Options) (*Process, error) {
	log, err := os.OpenFile(filepath.Join(o.Dir, "trousseau.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	// The process has a descriptor of its own.
	defer log.Close()
	port, err := loopback.Reserve("")
	if err != nil {
		return nil, err
	}

	p := &Process{dir: o.Dir, ops: pages.New(port.Addr), ended: make(chan struct{})}
	p.cmd = exec.CommandContext(ctx, o.Binary, append([]string{
		"--config-file-path=" + p.ConfigFile(),
		"--listen-addr=unix://" + p.Socket(),
		"--ops-addr=" + port.Addr,
	}, o.Args...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = stopWithin
	// A Ctrl-C in the terminal is for whoever tells the story; that one ends us.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		port.Release()
		return nil, fmt.Errorf("starting trousseau: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		port.Release()
		close(p.ended)
	}()
	if err := Await(ctx, startWithin, "trousseau's socket", p.listening); err != nil {
		text, _ := p.Log()
		return nil, errors.Join(err, p.Stop(), fmt.Errorf("its log: %s", text))
	}
	return p, nil
}

// listening reports whether the socket takes connections. That the process has
// ended is an error.
func (p *Process) listening(ctx context.Context) (bool, error) {
	select {
	case <-p.ended:
		return false, fmt.Errorf("trousseau has ended: %w", p.err)
	default:
	}
	_, err := Owner(ctx, p.Socket())
	return err == nil, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Socket is the path of the KMS socket.
func (p *Process) Socket() string { return filepath.Join(p.dir, "kms.sock") }

// ConfigFile is the path of config.yaml, which need not exist.
func (p *Process) ConfigFile() string { return filepath.Join(p.dir, "config.yaml") }

// Log is everything the process has written so far.
func (p *Process) Log() (string, error) {
	data, err := os.ReadFile(filepath.Join(p.dir, "trousseau.log"))
	return string(data), err
}

// Stop asks the process to end, waits until it has, and returns an error unless
// it ended by itself, with exit code 0. Stopping twice gives the same answer.
func (p *Process) Stop() error {
	// Its only error is that the process has ended.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopWithin):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	if p.err != nil {
		return fmt.Errorf("trousseau ended badly: %w", p.err)
	}
	return nil
}

// Owner is the process that listens on the socket, as the kernel tells whoever
// connects (SO_PEERCRED, unix(7)).
func Owner(ctx context.Context, socket string) (pid int, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if peerErr != nil {
		return 0, fmt.Errorf("asking who listens on %s: %w", socket, peerErr)
	}
	return int(peer.Pid), nil
}

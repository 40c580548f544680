// SPDX-License-Identifier: Apache-2.0

// Package plugin runs the trousseau binary as a separate process and reads what an
// operator can observe: its log, its ops endpoints and the process that owns its
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
	// startWithin bounds the time until the socket appears. Starting needs no other
	// server, not even Vault.
	startWithin = 10 * time.Second
	// stopWithin bounds the time between SIGTERM and SIGKILL. The binary's own
	// --drain-timeout is 5 seconds.
	stopWithin = 8 * time.Second
)

// Options select the binary and its settings.
type Options struct {
	// Binary is the path of the trousseau binary.
	Binary string
	// Dir is the directory of this process alone, with mode 0700. It holds
	// config.yaml, kms.sock and trousseau.log.
	Dir string
	// Args are additional flags.
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

// Start starts the binary and returns once its socket accepts connections; this
// needs neither Vault nor config.yaml. The process is stopped when ctx is done, or
// by [Process.Stop], which also reports how it ended.
func Start(ctx context.Context, o Options) (*Process, error) {
	log, err := os.OpenFile(filepath.Join(o.Dir, "trousseau.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	// The process has its own descriptor.
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
	// Ctrl-C in the terminal is for our process, which then stops this one.
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

// listening reports whether the socket accepts connections. It returns an error if
// the process has ended.
func (p *Process) listening(ctx context.Context) (bool, error) {
	select {
	case <-p.ended:
		return false, fmt.Errorf("trousseau has ended: %w", p.err)
	default:
	}
	_, err := Owner(ctx, p.Socket())
	return err == nil, nil
}

// PID returns the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Socket returns the path of the KMS socket.
func (p *Process) Socket() string { return filepath.Join(p.dir, "kms.sock") }

// ConfigFile returns the path of config.yaml, which need not exist.
func (p *Process) ConfigFile() string { return filepath.Join(p.dir, "config.yaml") }

// Log returns everything the process has written so far.
func (p *Process) Log() (string, error) {
	data, err := os.ReadFile(filepath.Join(p.dir, "trousseau.log"))
	return string(data), err
}

// Stop sends SIGTERM and waits until the process has ended. It returns an error
// unless the process exits by itself with code 0. It is idempotent.
func (p *Process) Stop() error {
	// The only possible error is that the process has already ended.
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

// Owner returns the process that listens on the socket, as reported by the kernel to
// a client (SO_PEERCRED, unix(7)).
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

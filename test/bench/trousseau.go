// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
	"github.com/trousseau-io/trousseau/test/harness/pages"
	"github.com/trousseau-io/trousseau/test/harness/usage"
)

// trousseau is a running daemon and a client for it.
type trousseau struct {
	client kmsapi.KeyManagementServiceClient
	pages  *pages.Client
	began  time.Time // of the exec

	conn *grpc.ClientConn
	cmd  *exec.Cmd
	ops  *loopback.Port
	dir  string
}

// dial connects to a socket like kube-apiserver: one connection for all requests.
func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		// Connect as soon as the socket exists, to measure that and not the backoff.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: time.Millisecond, Multiplier: 1, MaxDelay: time.Millisecond},
		}))
}

// launch starts the binary without a configuration.
func launch(ctx context.Context, binary string, flags ...string) (*trousseau, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	p := &trousseau{dir: dir}
	socket := "unix://" + filepath.Join(dir, "kms.sock")
	if p.conn, err = dial(socket); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p.client = kmsapi.NewKeyManagementServiceClient(p.conn)
	if p.ops, err = loopback.Reserve(""); err != nil {
		return nil, errors.Join(err, p.conn.Close(), os.RemoveAll(dir))
	}
	p.pages = pages.New(p.ops.Addr)
	p.cmd = command(ctx, binary, append([]string{
		"--config-file-path=" + p.config(), "--listen-addr=" + socket, "--ops-addr=" + p.ops.Addr,
	}, flags...)...)
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		p.ops.Release()
		return nil, errors.Join(err, p.conn.Close(), os.RemoveAll(dir))
	}
	return p, nil
}

// command returns a command that ends with this process.
func command(ctx context.Context, binary string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// launchReady starts the binary with a Vault and waits until it is healthy.
func launchReady(ctx context.Context, binary string, v *upstream, flags ...string) (*trousseau, error) {
	p, err := launch(ctx, binary, flags...)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(p.configure(v, keyA, keyB), p.awaitKey(ctx, keyA)); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *trousseau) config() string { return filepath.Join(p.dir, "config.yaml") }

// configure renames a configuration with these keys into place.
func (p *trousseau) configure(v *upstream, keys ...string) error {
	text := fmt.Sprintf("provider: vault\nvault:\n  keynames: [%s]\n  address: %s\n  token: %s\n",
		strings.Join(keys, ", "), v.url, v.token)
	if v.ca != nil {
		ca := filepath.Join(p.dir, "ca.pem")
		if err := os.WriteFile(ca, v.ca, 0o600); err != nil {
			return err
		}
		text += "  vaultCACert: " + ca + "\n"
	}
	tmp := filepath.Join(p.dir, "12345")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, p.config())
}

// awaitKey waits until Status reports a key.
func (p *trousseau) awaitKey(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		st, err := p.client.Status(ctx, &kmsapi.StatusRequest{})
		if err == nil && strings.HasPrefix(st.GetKeyId(), "transit/"+key+"/") {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for key %s: %w", key, errors.Join(ctx.Err(), err))
		}
	}
}

func (p *trousseau) memory() (usage.Resident, error) { return usage.Memory(p.cmd.Process.Pid) }

func (p *trousseau) close() {
	_ = p.conn.Close()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
	p.ops.Release()
	_ = os.RemoveAll(p.dir)
}

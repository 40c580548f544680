// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
	"github.com/trousseau-io/trousseau/test/harness/direct"
)

// keyA and keyB are the transit keys of every Vault here.
const (
	keyA = "a"
	keyB = "b"
)

// upstream is a Vault with two transit keys, and a token for them.
type upstream struct {
	what  string // for the report
	url   string
	ca    []byte // PEM; nil without TLS
	token string
	pid   int

	close func()
}

// startVault starts the real Vault if it has been built, otherwise a fake, both with
// TLS. The caller must close it.
func startVault(ctx context.Context) (*upstream, error) {
	binary, err := direct.FindVault()
	if err != nil {
		return nil, err
	}
	if binary == "" {
		return startFake(ctx)
	}
	v, err := startReal(ctx, binary)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", binary, err)
	}
	return v, nil
}

const rootToken = "root"

// policy is the policy in the documentation.
const policy = `
path "transit/encrypt/*" { capabilities = ["update"] }
path "transit/decrypt/*" { capabilities = ["update"] }
path "transit/keys/*"    { capabilities = ["read"] }
`

// startReal starts a Vault in development mode: in memory, unsealed, with TLS and
// its own CA.
func startReal(ctx context.Context, binary string) (v *upstream, err error) {
	dir, err := os.MkdirTemp("", "bench-vault")
	if err != nil {
		return nil, err
	}
	port, err := loopback.Reserve("")
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer log.Close()
	cmd := command(ctx, binary, "server", "-dev", "-dev-tls", "-dev-tls-cert-dir="+dir, "-dev-no-store-token",
		"-dev-root-token-id="+rootToken, "-dev-listen-address="+port.Addr, "-log-level=error")
	cmd.Env = []string{"HOME=" + dir}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	v = &upstream{url: "https://" + port.Addr, pid: cmd.Process.Pid, close: func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		port.Release()
		_ = os.RemoveAll(dir)
	}}
	if err := v.setUp(ctx, filepath.Join(dir, "vault-ca.pem")); err != nil {
		said, _ := os.ReadFile(log.Name())
		v.close()
		return nil, fmt.Errorf("%w; its log: %s", err, said)
	}
	return v, nil
}

// setUp prepares an empty Vault for the comparison.
func (v *upstream) setUp(ctx context.Context, caFile string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var health struct {
		Version string `json:"version"`
	}
	var root *direct.Client
	for {
		var err error
		if v.ca, err = os.ReadFile(caFile); err == nil {
			root, err = v.direct(rootToken)
		}
		if err == nil {
			err = root.Call(ctx, http.MethodGet, "sys/health", nil, &health)
		}
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	defer root.Close()
	v.what = "Vault " + health.Version + ", in memory"
	var token struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	if err := errors.Join(
		root.Call(ctx, http.MethodPost, "sys/mounts/transit", map[string]string{"type": "transit"}, nil),
		root.Call(ctx, http.MethodPost, "transit/keys/"+keyA, struct{}{}, nil),
		root.Call(ctx, http.MethodPost, "transit/keys/"+keyB, struct{}{}, nil),
		root.Call(ctx, http.MethodPut, "sys/policies/acl/trousseau", map[string]string{"policy": policy}, nil),
		root.Call(ctx, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"trousseau"}, "period": "1h"}, &token),
	); err != nil {
		return err
	}
	v.token = token.Auth.ClientToken
	return nil
}

// direct returns a client for this Vault.
func (v *upstream) direct(token string) (*direct.Client, error) {
	return direct.New(v.url, v.ca, token, mostCallers)
}

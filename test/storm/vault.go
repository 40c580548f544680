// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
	"github.com/trousseau-io/trousseau/test/harness/direct"
	"github.com/trousseau-io/trousseau/test/harness/plugin"
	"github.com/trousseau-io/trousseau/test/harness/usage"
)

// upstream is the Vault that all clusters share.
type upstream interface {
	reach() reach
	// calls returns how many requests it has answered since forget.
	calls() (int, error)
	forget() error
	cpu() (time.Duration, error)
	// down stops it; up starts it, and returns once it can be used.
	down() error
	up(ctx context.Context) error
	// limit sets a rate limit quota for transit; 0 removes it.
	limit(ctx context.Context, perSecond int) error
}

// reach is how to reach a Vault as its administrator.
type reach struct {
	what, url, root string
	ca              []byte // PEM
}

// server is a Vault as in production: TLS, storage in raft, an audit device.
type server struct {
	reachable reach
	unseal    string // the only share of its key
	root      *direct.Client

	binary, dir string
	api, raft   *loopback.Port
	cmd         *exec.Cmd // nil while it is down
}

const vaultConfig = `disable_mlock = true
api_addr      = "https://%[1]s"
cluster_addr  = "https://%[2]s"

listener "tcp" {
  address         = "%[1]s"
  cluster_address = "%[2]s"
  tls_cert_file   = "%[3]s/cert.pem"
  tls_key_file    = "%[3]s/key.pem"
}

storage "raft" {
  path                   = "%[3]s/raft"
  node_id                = "storm"
  performance_multiplier = 1
}
`

// upWithin bounds the start and the unsealing.
const upWithin = 2 * time.Minute

// startVault starts, initializes and unseals a Vault. The caller must close it.
func startVault(ctx context.Context) (_ *server, err error) {
	v := &server{}
	if v.binary, err = direct.FindVault(); err != nil {
		return nil, err
	}
	if v.binary == "" {
		return nil, errors.New("there is no Vault to start: run test/tools/build, or set TROUSSEAU_E2E to the directory that holds it")
	}
	defer func() {
		if err != nil {
			log, _ := os.ReadFile(filepath.Join(v.dir, "log"))
			err = errors.Join(fmt.Errorf("starting %s: %w; its log: %s", v.binary, err, log), v.close())
		}
	}()
	if v.dir, err = os.MkdirTemp("", "storm-vault"); err != nil {
		return nil, err
	}
	if v.api, err = loopback.Reserve(""); err != nil {
		return nil, err
	}
	if v.raft, err = loopback.Reserve(""); err != nil {
		return nil, err
	}
	v.reachable.url = "https://" + v.api.Addr
	cert, key, err := selfSigned()
	if err != nil {
		return nil, err
	}
	v.reachable.ca = cert
	if err := errors.Join(
		os.Mkdir(filepath.Join(v.dir, "raft"), 0o700),
		os.WriteFile(filepath.Join(v.dir, "cert.pem"), cert, 0o600),
		os.WriteFile(filepath.Join(v.dir, "key.pem"), key, 0o600),
		os.WriteFile(filepath.Join(v.dir, "config.hcl"), fmt.Appendf(nil, vaultConfig, v.api.Addr, v.raft.Addr, v.dir), 0o600),
	); err != nil {
		return nil, err
	}
	if err := v.start(ctx); err != nil {
		return nil, err
	}
	if err := v.initialize(ctx); err != nil {
		return nil, err
	}
	return v, v.await(ctx)
}

// start starts the process.
func (v *server) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(v.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, v.binary, "server", "-config="+filepath.Join(v.dir, "config.hcl"), "-log-level=error")
	cmd.Env = []string{"HOME=" + v.dir}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	v.cmd = cmd
	return nil
}

// initialize makes the keys and the audit device of an empty Vault.
func (v *server) initialize(ctx context.Context) error {
	anonymous, err := direct.New(v.reachable.url, v.reachable.ca, "", 1)
	if err != nil {
		return err
	}
	defer anonymous.Close()
	var keys struct {
		Keys []string `json:"keys_base64"`
		Root string   `json:"root_token"`
	}
	err = plugin.Await(ctx, upWithin, "Vault to be initialized", func(ctx context.Context) (bool, error) {
		// An error means that it does not listen yet.
		return anonymous.Call(ctx, http.MethodPut, "sys/init", map[string]int{"secret_shares": 1, "secret_threshold": 1}, &keys) == nil, nil
	})
	if err != nil {
		return err
	}
	v.reachable.root, v.unseal = keys.Root, keys.Keys[0]
	if v.root, err = direct.New(v.reachable.url, v.reachable.ca, keys.Root, 1); err != nil {
		return err
	}
	if err := v.await(ctx); err != nil {
		return err
	}
	var health struct {
		Version string `json:"version"`
	}
	if err := v.root.Call(ctx, http.MethodGet, "sys/health", nil, &health); err != nil {
		return err
	}
	if err := v.root.Call(ctx, http.MethodPost, "sys/mounts/transit", map[string]string{"type": "transit"}, nil); err != nil {
		return err
	}
	v.reachable.what = "Vault " + health.Version + ", one node, storage in raft, TLS, audit to a file"
	return v.root.Call(ctx, http.MethodPut, "sys/audit/file",
		map[string]any{"type": "file", "options": map[string]string{"file_path": v.audit()}}, nil)
}

// await unseals it and waits until it can be used.
func (v *server) await(ctx context.Context) error {
	return plugin.Await(ctx, upWithin, "Vault to be unsealed", func(ctx context.Context) (bool, error) {
		if v.root.Call(ctx, http.MethodGet, "sys/health", nil, nil) == nil {
			return true, nil
		}
		// It may not listen yet.
		_ = v.root.Call(ctx, http.MethodPut, "sys/unseal", map[string]string{"key": v.unseal}, nil)
		return false, nil
	})
}

func (v *server) reach() reach { return v.reachable }

func (v *server) cpu() (time.Duration, error) {
	if v.cmd == nil {
		return 0, nil
	}
	return usage.CPU(v.cmd.Process.Pid)
}

func (v *server) down() error {
	if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := v.cmd.Wait()
	v.cmd = nil
	return err
}

func (v *server) up(ctx context.Context) error {
	// The storm's context ends earlier than the Vault is needed.
	if err := v.start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return v.await(ctx)
}

func (v *server) limit(ctx context.Context, perSecond int) error {
	if perSecond == 0 {
		return v.root.Call(ctx, http.MethodDelete, "sys/quotas/rate-limit/storm", nil, nil)
	}
	return v.root.Call(ctx, http.MethodPost, "sys/quotas/rate-limit/storm",
		map[string]any{"rate": perSecond, "interval": "1s", "path": "transit/"}, nil)
}

func (v *server) audit() string { return filepath.Join(v.dir, "audit.log") }

// forget empties the audit log, to which Vault only appends.
func (v *server) forget() error { return os.Truncate(v.audit(), 0) }

// calls counts the requests in the audit log. What the rate limit refuses is not
// there, nor is sys/health.
func (v *server) calls() (int, error) {
	text, err := os.ReadFile(v.audit())
	return bytes.Count(text, []byte(`"type":"request"`)), err
}

func (v *server) close() error {
	if v.cmd != nil {
		_ = v.cmd.Process.Kill()
		_ = v.cmd.Wait()
	}
	for _, port := range []*loopback.Port{v.api, v.raft} {
		if port != nil {
			port.Release()
		}
	}
	return os.RemoveAll(v.dir)
}

// selfSigned returns a certificate for 127.0.0.1 that is its own CA, and its key.
func selfSigned() (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}), nil
}

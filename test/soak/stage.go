// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/test/harness/network"
)

// keyName is the transit key in the mount transit.
const keyName = "trousseau-kms-vault"

// stage holds the servers and files that faults affect.
type stage struct {
	dir   string // holds all files; kept after a failure
	vault *vaulttest.Server
	key   *vaulttest.Key
	clock atomic.Int64 // offset of Vault's clock, a time.Duration
	// network is between trousseau and vault.
	network *network.Proxy
	// sibling is another node of vault's cluster; stranger is another Vault that has
	// a key of the same name. Only some faults make either a second address.
	sibling, stranger *vaulttest.Server
	agent             *renderer
	daemon            *daemon
	// starving means that trousseau's file descriptors are exhausted.
	starving atomic.Bool
	disk     string // mount point of the small disk; "" if it failed with noDisk
	noDisk   error

	secrets *secrets
	// unknownToken looks like a token but is unknown to Vault.
	unknownToken string

	rendering sync.WaitGroup
	stop      context.CancelFunc
}

// newStage starts Vault and the agent, but not trousseau.
func newStage(binary string, unexpected func(error)) (_ *stage, err error) {
	s := &stage{secrets: newSecrets(), unknownToken: "hvs." + rand.Text(), stop: func() {}}
	s.secrets.add(s.unknownToken)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(true))
		}
	}()
	// Keep the path short: it is part of a socket's path.
	if s.dir, err = os.MkdirTemp("", "soak-"); err != nil {
		return nil, err
	}
	config, socket := filepath.Join(s.dir, "config"), filepath.Join(s.dir, "socket")
	for _, dir := range []string{config, socket} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if s.noDisk = mountDisk(config); s.noDisk == nil {
		s.disk = config
	}
	s.vault, err = vaulttest.New(vaulttest.Options{TLS: true, ClientCert: true, Now: func() time.Time {
		return time.Now().Add(time.Duration(s.clock.Load()))
	}})
	if err != nil {
		return nil, err
	}
	s.key = s.vault.CreateKey(keyName)
	if s.network, err = network.NewProxy(s.vault.Addr()); err != nil {
		return nil, err
	}
	if s.sibling, err = vaulttest.New(vaulttest.Options{TLS: true, ClientCert: true, Join: s.vault}); err != nil {
		return nil, err
	}
	if s.stranger, err = vaulttest.New(vaulttest.Options{TLS: true}); err != nil {
		return nil, err
	}
	s.stranger.CreateKey(keyName)
	s.agent = newRenderer(config, "https://"+s.network.Addr)
	s.agent.put(caFile, s.authorities())
	s.agent.put(certFile, string(s.vault.ClientCertPEM()))
	s.agent.put(keyFile, string(s.vault.ClientKeyPEM()))
	s.agent.renderToken(s.mint())
	lines, err := privateKey(s.vault.ClientKeyPEM())
	if err != nil {
		return nil, err
	}
	s.secrets.add(lines...)
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	s.rendering.Go(func() { s.agent.run(ctx) })

	s.daemon, err = newDaemon(binary, s.dir, s.agent.path(configName), filepath.Join(socket, "kms.sock"), unexpected)
	return s, err
}

// mint creates a token for trousseau.
func (s *stage) mint() string {
	token := s.vault.KMSToken(keyName)
	s.secrets.add(token)
	return token
}

// authorities returns the CA certificates of all servers.
func (s *stage) authorities() string {
	return string(s.vault.CAPEM()) + string(s.sibling.CAPEM()) + string(s.stranger.CAPEM())
}

// connections returns how many connections trousseau has to Vault.
func (s *stage) connections() int {
	return s.network.Connections(trousseauHost) + s.sibling.Connections() + s.stranger.Connections()
}

// process identifies the running trousseau; 0 if there is none, or one that can open
// no connection.
func (s *stage) process() int {
	pid, starts := s.daemon.pid()
	if pid == 0 || s.starving.Load() {
		return 0
	}
	return starts
}

// known returns all current secrets: plaintexts of callers, all secrets seen by
// Vault, and trousseau's private key.
func (s *stage) known() *secrets {
	s.secrets.add(s.vault.Secrets()...)
	s.secrets.add(s.stranger.Secrets()...)
	return s.secrets
}

// privateKey returns the lines of a PEM block and its decoded content.
func privateKey(text []byte) (lines []string, err error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the client's key is not PEM")
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "-----") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return append(lines, string(block.Bytes)), nil
}

// close ends everything and removes the files unless they are needed.
func (s *stage) close(remove bool) error {
	s.stop()
	s.rendering.Wait()
	var err error
	if s.daemon != nil {
		err = s.daemon.close()
	}
	if s.network != nil {
		s.network.Close()
	}
	for _, server := range []*vaulttest.Server{s.vault, s.sibling, s.stranger} {
		if server != nil {
			server.Close()
		}
	}
	if s.disk != "" {
		// The log is lost with the disk: keep a copy after a failure.
		if !remove {
			err = errors.Join(err, os.CopyFS(filepath.Join(s.dir, "config-at-the-end"), os.DirFS(s.disk)))
		}
		if e := syscall.Unmount(s.disk, syscall.MNT_DETACH); e != nil {
			err = errors.Join(err, fmt.Errorf("unmounting %s: %w", s.disk, e))
		}
	}
	if remove && s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	kmsapi "k8s.io/kms/apis/v2"
)

// peer is another plugin to measure in the same run: one that runs already, or a
// trousseau binary to start.
type peer struct {
	name string
	path string   // of the socket or of the binary
	args []string // of the binary
}

// parsePeers reads NAME=/path/to.sock or NAME=/path/to/trousseau --flag …, separated
// by commas.
func parsePeers(text string) ([]peer, error) {
	var peers []peer
	taken := map[string]bool{directly: true, through: true}
	for _, one := range strings.Split(text, ",") {
		if strings.TrimSpace(one) == "" {
			continue
		}
		name, what, _ := strings.Cut(one, "=")
		name = strings.TrimSpace(name)
		words := strings.Fields(what)
		if name == "" || len(words) == 0 {
			return nil, fmt.Errorf("peer %q: want NAME=/path/to.sock, or NAME=/path/to/trousseau --flag", one)
		}
		if taken[name] {
			return nil, fmt.Errorf("peer %q: the name is taken", name)
		}
		taken[name] = true
		peers = append(peers, peer{name, words[0], words[1:]})
	}
	return peers, nil
}

// start makes a contender of the peer. The caller must close it.
func (p peer) start(ctx context.Context, v *upstream) (c *contender, end func(), err error) {
	if info, err := os.Stat(p.path); err == nil && info.Mode().IsRegular() {
		process, err := launchReady(ctx, p.path, v, p.args...)
		if err != nil {
			return nil, nil, fmt.Errorf("peer %s: %w", p.name, err)
		}
		return ofPlugin(p.name, process.client, process), process.close, nil
	}
	client, end, err := p.await(ctx, v)
	if err != nil {
		return nil, nil, fmt.Errorf("peer %s: %w", p.name, err)
	}
	return ofPlugin(p.name, client, nil), end, nil
}

// peerPatience is how long there is to start a peer that is not a trousseau binary.
const peerPatience = 5 * time.Minute

// await waits for the socket of a peer, which whoever started this program can start
// now: with v, to compare them.
func (p peer) await(ctx context.Context, v *upstream) (client kmsapi.KeyManagementServiceClient, end func(), err error) {
	dir, err := os.MkdirTemp("", "bench-vault")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{"address": v.url, "ca.pem": string(v.ca), "token": v.token, "key": keyA} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, nil, err
		}
	}
	report(fmt.Sprintf("waiting %v for peer %s at %s", peerPatience, p.name, p.path), "the Vault of this run is described in %s", dir)
	conn, err := dial("unix://" + p.path)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	client = kmsapi.NewKeyManagementServiceClient(conn)
	for {
		st, err := client.Status(ctx, &kmsapi.StatusRequest{})
		if err == nil && st.GetHealthz() == "ok" {
			return client, func() { _ = conn.Close() }, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil, errors.Join(fmt.Errorf("Status: healthz %q: %w", st.GetHealthz(), cmp.Or(err, ctx.Err())), conn.Close())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

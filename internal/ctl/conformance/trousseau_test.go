// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/daemon/kms"
	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
	"github.com/trousseau-io/trousseau/internal/endpoint"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// TestTrousseau checks our own server on a real socket with a key in a fake Vault,
// with and without associated data.
func TestTrousseau(t *testing.T) {
	for name, extra := range map[string]string{
		"plain":           "",
		"associated data": "  associatedData: cluster-1\n  requireAssociatedData: true\n",
	} {
		t.Run(name, func(t *testing.T) {
			v := vaulttest.Start(t)
			v.CreateKey("kek")
			check(t, run(t, serveTrousseau(t, v, extra), ""), nil, false)
		})
	}
}

// serveTrousseau serves like cmd/trousseau until the end of the test.
func serveTrousseau(t *testing.T, v *vaulttest.Server, extra string) endpoint.Endpoint {
	t.Helper()
	contents := make(chan watch.Content[*config.Config], 1)
	cfg, err := config.Parse(fmt.Appendf(nil,
		"provider: vault\nvault:\n  keynames: [kek]\n  address: %s\n  token: %s\n%s", v.URL(), v.KMSToken("kek"), extra), nil)
	contents <- watch.Content[*config.Config]{Path: "config.yaml", Digest: "1", Value: cfg, Err: err}
	const requestTimeout = 25 * time.Second
	kek := live.New(live.Options{
		Contents: contents, RequestTimeout: requestTimeout, ProbeInterval: time.Minute, OutageGrace: time.Minute,
	})
	server := kms.New(kms.Options{KEK: kek, RequestTimeout: requestTimeout})
	path := filepath.Join(socketDir(t), "kms.sock")
	listener, err := unixsock.Listen(t.Context(), unixsock.Options{Path: path, Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, served := make(chan struct{}), make(chan error, 1)
	adopted := kek.Replaced()
	go func() {
		defer close(ended)
		kek.Run(ctx)
	}()
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Shutdown(ctx)
		cancel()
		<-ended
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-adopted:
	case <-time.After(30 * time.Second):
		_, err := kek.Status()
		t.Fatalf("the configuration is not adopted: %v", err)
	}
	return at(t, path)
}

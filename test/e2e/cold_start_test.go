// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// The power fails, and everything restarts in the worst order: kube-apiserver first,
// Vault last and sealed. Each server is started only once. The test runs with
// config.yaml on disk, and with config.yaml gone, as after a reboot if it is kept in
// memory. Only the agent's interval is shortened.
func TestColdStartOfEverything(t *testing.T) {
	c := testbed.SetUp(testbed.New(t, &report, "7 cold start of everything"), testbed.Options{})
	node := c.Nodes[0]
	secrets := create(t, node.APIServer, "own-", 10)
	c.Etcd.LeaveSecrets(node.Trousseau, "seed-", 10)
	secrets.learn(t, node.APIServer, "seed-", 10)
	keyID := node.Trousseau.KeyID()

	for _, config := range []string{"still there", "gone"} {
		killEverything(t, c)
		if config == "gone" {
			if err := os.Remove(node.ConfigFile); err != nil {
				t.Fatal(err)
			}
		}
		startInWorstOrder(t, c, secrets, config)
		if got := node.Trousseau.KeyID(); got != keyID {
			t.Errorf("config.yaml %s: key_id is %s, want %s as before", config, got, keyID)
		}
	}
}

// killEverything kills all servers and checks that the socket file remains.
func killEverything(t *testing.T, c *testbed.Cluster) {
	t.Helper()
	node := c.Nodes[0]
	for _, s := range []*testbed.Server{node.Trousseau.Server, node.APIServer.Server, node.Agent, c.Vault.Nodes[0].Server, c.Etcd.Server} {
		s.Kill()
	}
	if left := c.PIDs(); len(left) > 0 {
		t.Fatalf("%v still running", left)
	}
	info, err := os.Lstat(node.Trousseau.Socket)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		t.Fatalf("the killed Trousseau left no socket (%v, %v); this test proves nothing", info, err)
	}
	if conn, err := net.Dial("unix", node.Trousseau.Socket); err == nil {
		conn.Close()
		t.Fatal("a process listens on the socket")
	}
}

// startInWorstOrder starts each server once. It starts the next one only when those
// before it are seen to fail without it.
func startInWorstOrder(t *testing.T, c *testbed.Cluster, secrets remembered, config string) {
	t.Helper()
	node, vault := c.Nodes[0], c.Vault.Nodes[0]
	api, trousseau := node.APIServer, node.Trousseau
	config = "config.yaml " + config

	from := len(api.Log())
	api.Start()
	c.Await(15*time.Second, config+": kube-apiserver to fail without etcd",
		api.Logged(from, "dial tcp "+strings.TrimPrefix(c.Etcd.URL, "http://")+": connect: connection refused"))
	// Without etcd, kube-apiserver exits 20 seconds after its start.
	c.Etcd.Start()
	// Its /livez would be ok only a minute later, when it stops waiting for its watch
	// cache of Secrets (post-start hook storage-readiness).
	c.Await(2*time.Minute, config+": kube-apiserver to serve without its plugin", func(ctx context.Context) error {
		_, err := api.Page(ctx, "/readyz/kms-providers")
		if err == nil {
			return errors.New("its /readyz/kms-providers is ok")
		}
		err = secrets.readable(ctx, api)
		if err == nil {
			return errors.New("it can read Secrets")
		}
		if !strings.Contains(err.Error(), "nil transformer") {
			return fmt.Errorf("not because of a missing transformer: %w", err)
		}
		return nil
	})

	from = len(node.Agent.Log())
	node.Agent.Start()
	// Older agents say so only when their HTTP client has tried 12 times, a minute later.
	c.Await(3*time.Minute, config+": the agent to fail without Vault", node.Agent.Logged(from, "error authenticating"))

	from = len(trousseau.Log())
	trousseau.Start()
	c.Await(30*time.Second, config+": Trousseau to serve and report what is missing", func(ctx context.Context) error {
		_, err := trousseau.KMS.Status(ctx)
		if code := status.Code(err); code != codes.Unavailable {
			return fmt.Errorf("Status has code %s, want Unavailable", code)
		}
		return trousseau.Logged(from, "no usable configuration yet")(ctx)
	})

	vault.Start()
	processes := c.PIDs()
	if len(processes) != 5 {
		t.Fatalf("%s: running: %v, want all five servers", config, processes)
	}
	vault.Unseal()
	unsealed := time.Now()
	// The agent's backoff between logins can be up to one minute.
	c.Await(3*time.Minute, config+": Trousseau to be ready", trousseau.Ready)
	ready := since(unsealed)
	api.AwaitReady()
	apiReady := since(unsealed)
	secrets.mustBeReadable(t, api, config+": after the cold start")
	create(t, api, "after-"+strings.ReplaceAll(config, " ", "-")+"-", 1).mustBeReadable(t, api, config)
	c.MustBeSameProcesses(processes)
	c.Count(len(secrets)+1, 0)
	c.Observe("%s: after Vault was unsealed Trousseau was ready in %s, kube-apiserver in %s, all %d Secrets were read in %s",
		config, ready, apiReady, len(secrets), since(unsealed))
}

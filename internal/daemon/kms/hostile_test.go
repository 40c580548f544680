// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
)

// TestHostileClients runs all [attacks] one after another. During each, two honest
// callers are answered in time, one on a persistent connection and one on a new
// connection for each call. The server's resources are bounded and released.
func TestHostileClients(t *testing.T) {
	server := startServer(t)
	callers := beHonest(t, server.path)
	callers.answered(t)
	before := server.cost(t)
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			needsFiles(t, a.clients)
			attacker := play(t, "attacker", server.path, a.name)
			// Long enough for a flood to reach its limit.
			time.Sleep(200 * time.Millisecond)
			callers.answered(t)
			during := server.cost(t)
			attacker.end()

			// 576 connections, the maximum, with three goroutines and buffers need 23 MiB,
			// and 1,280 open requests with 40 KiB each need 50 MiB. The garbage collector
			// may double that.
			const most = 146
			if during.memory > most {
				t.Errorf("the server needs %d MiB of memory, want at most %d", during.memory, most)
			}
			if got, most := during.files-before.files, 580; got > most {
				t.Errorf("the server has %d connections open, want at most %d", got, most)
			}
			t.Logf("%+v", during)
		})
	}
	callers.stop()
	var after cost
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if after = server.cost(t); after.files <= before.files && after.goroutines <= before.goroutines {
			return
		}
	}
	t.Errorf("the server has not recovered: %+v before the attacks, %+v after them", before, after)
}

// needsFiles skips a test if the limit of open files is too low.
func needsFiles(t *testing.T, n int) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// The runtime raises the soft limit to the hard limit.
	if limit.Max < uint64(n+100) {
		t.Skipf("needs %d open files, at most %d are allowed", n+100, limit.Max)
	}
}

// dialLikeKube returns a client configured as in kube-apiserver's NewGRPCService in
// apiserver/pkg/storage/value/encrypt/envelope/kmsv2.
func dialLikeKube(path string) (kmsapi.KeyManagementServiceClient, func(), error) {
	conn, err := grpc.NewClient("unix://"+path, grpc.WithAuthority("localhost"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, nil, err
	}
	return kmsapi.NewKeyManagementServiceClient(conn), func() { conn.Close() }, nil
}

// honest are callers that call continuously.
type honest struct {
	stop    func() // stops them and waits for their end
	callers [2]caller
}

type caller struct {
	name  string
	every time.Duration
	call  func() error

	mu      sync.Mutex
	calls   int // since the last check
	slowest time.Duration
	err     error // the first
}

// beHonest starts a caller with a persistent connection and one that connects for
// each call.
func beHonest(t *testing.T, path string) *honest {
	t.Helper()
	client, closeConn, err := dialLikeKube(path)
	if err != nil {
		t.Fatal(err)
	}
	h := &honest{callers: [2]caller{
		{name: "on its connection", every: 10 * time.Millisecond, call: func() error { return exchange(client) }},
		{name: "on a new connection", every: 100 * time.Millisecond, call: func() error {
			err := exchangeOnNewConnection(path)
			if status.Code(err) == codes.Unavailable {
				// If this process is not scheduled while 512 others connect, this connection
				// has the oldest last request.
				err = exchangeOnNewConnection(path)
			}
			return err
		}},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	h.stop = sync.OnceFunc(func() {
		cancel()
		workers.Wait()
		closeConn()
	})
	t.Cleanup(h.stop)
	for i := range h.callers {
		workers.Go(func() { h.callers[i].run(ctx) })
	}
	return h
}

func (c *caller) run(ctx context.Context) {
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for {
		start := time.Now()
		err := c.call()
		took := time.Since(start)
		c.mu.Lock()
		c.calls++
		c.slowest = max(c.slowest, took)
		if err != nil && c.err == nil {
			c.err = fmt.Errorf("after %v: %w", took, err)
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// answered waits until each caller has called since the last check, and verifies
// that all calls were answered.
func (h *honest) answered(t *testing.T) {
	t.Helper()
	for i := range h.callers {
		h.callers[i].answered(t)
	}
}

func (c *caller) answered(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		c.mu.Lock()
		calls, slowest, err := c.calls, c.slowest, c.err
		if calls > 0 {
			c.calls, c.slowest, c.err = 0, 0, nil
		}
		c.mu.Unlock()
		if err != nil {
			t.Errorf("a caller %s failed: %v", c.name, err)
		}
		if calls > 0 {
			t.Logf("%d calls %s, the slowest %v", calls, c.name, slowest)
			return
		}
	}
	t.Fatalf("a caller %s is not answered", c.name)
}

func exchangeOnNewConnection(path string) error {
	client, closeConn, err := dialLikeKube(path)
	if err != nil {
		return err
	}
	defer closeConn()
	return exchange(client)
}

// exchange calls Status and Encrypt. kube-apiserver would wait 3 s for each; the
// rest is a margin for a busy machine and the race detector.
func exchange(client kmsapi.KeyManagementServiceClient) error {
	const timeout = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if _, err := client.Status(ctx, &kmsapi.StatusRequest{}); err != nil {
		return fmt.Errorf("Status: %w", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if _, err := client.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: []byte("seed")}); err != nil {
		return fmt.Errorf("Encrypt: %w", err)
	}
	return nil
}

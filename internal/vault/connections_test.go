// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"net/http/httptrace"
	"sync"
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// go-retryablehttp closes a pool after every failed request, if it can.
func TestFailuresKeepConnections(t *testing.T) {
	for name, fault := range map[string]func(*vaulttest.Server){
		"sealed":    (*vaulttest.Server).Seal,
		"throttled": func(s *vaulttest.Server) { s.Throttle() },
		"denied":    func(s *vaulttest.Server) { s.FailNext(0, 403, "") },
		"no data":   func(s *vaulttest.Server) { s.FailNext(0, 200, "null") },
	} {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t, vaulttest.Options{TLS: true})
			s.CreateKey("kek")
			c := dial(t, s, nil)
			if err := encrypt(bounded(t), c); err != nil {
				t.Fatal(err)
			}
			fault(s)
			for range 50 {
				if err := encrypt(bounded(t), c); err == nil {
					t.Fatal("got no error")
				}
			}
			if got := s.Count(vaulttest.OpEncrypt); got != 51 {
				t.Errorf("got %d requests, want 51", got)
			}
			// net/http does not reuse a connection whose writer has not reported within 50 ms
			// (maxWriteWaitBeforeConnReuse).
			if got := s.ConnectionsOpened(); got > 10 {
				t.Errorf("got %d connections, want one for all, or few", got)
			}
		})
	}
}

// The connections of a burst are reused by the next one. Without TLS, because a burst of handshakes needs more CPU
// time than the one-second timeout allows.
func TestBurstsShareConnections(t *testing.T) {
	const callers = 32
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	c := dial(t, s, nil)
	for range 3 {
		burst(t, s, c, callers)
	}
	// A request waiting for its dial may get a returned connection instead: then there is one more.
	if got := s.ConnectionsOpened(); got < callers || got > 2*callers {
		t.Errorf("got %d connections for three bursts of %d", got, callers)
	}
}

// burst makes n calls at once, each on its own connection.
func burst(t *testing.T, s *vaulttest.Server, c *vault.Client, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(bounded(t))
	defer cancel()
	release := s.Hang()
	var calls sync.WaitGroup
	for range n {
		calls.Go(func() {
			if err := encrypt(ctx, c); err != nil {
				t.Error(err)
				cancel()
			}
		})
	}
	if err := s.WaitInFlight(ctx, n); err != nil {
		t.Error(err)
	}
	release()
	calls.Wait()
}

func TestRestartFailsNoCall(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true})
	s.CreateKey("kek")
	c := dial(t, s, nil)
	for range 20 {
		if err := encrypt(bounded(t), c); err != nil {
			t.Fatal(err)
		}
		s.Stop()
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.ConnectionsOpened(); got != 20 {
		t.Errorf("got %d connections, want 20", got)
	}
}

// The server may also break a pooled connection when a request arrives on it: the worst case, which net/http
// retries only for idempotent requests.
func TestPooledConnectionThatIsLost(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	c := dial(t, s, nil)
	ciphertext, _, err := c.Encrypt(bounded(t), "kek", 0, []byte("seed"), nil)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]func(context.Context) error{
		vaulttest.OpEncrypt:    func(ctx context.Context) error { return encrypt(ctx, c) },
		vaulttest.OpDecrypt:    func(ctx context.Context) error { _, err := c.Decrypt(ctx, "kek", ciphertext, nil); return err },
		vaulttest.OpReadKey:    func(ctx context.Context) error { _, err := c.ReadKey(ctx, "kek"); return err },
		vaulttest.OpLookupSelf: func(ctx context.Context) error { _, err := c.LookupSelf(ctx); return err },
	}
	for op, call := range calls {
		// net/http does not reuse a connection whose writer has not reported within 50 ms: then there is none to
		// break.
		for pooled := false; !pooled; s.ClearFaults() {
			if err := encrypt(bounded(t), c); err != nil {
				t.Fatal(err)
			}
			s.ResetCounts()
			s.Cut(1)
			var first sync.Once
			err := call(httptrace.WithClientTrace(bounded(t), &httptrace.ClientTrace{
				GotConn: func(got httptrace.GotConnInfo) { first.Do(func() { pooled = got.Reused }) },
			}))
			if !pooled {
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", op, err)
			}
			if got := s.Count(op); got != 2 {
				t.Errorf("%s: got %d requests, want 2: the cut one and its repetition", op, got)
			}
		}
	}
}

func TestIdempotencyKeyIsNotSent(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	headers := make(chan []string, 1)
	s.Intercept(recordHeader("Idempotency-Key", headers))
	if err := encrypt(bounded(t), dial(t, s, nil)); err != nil {
		t.Fatal(err)
	}
	if got := <-headers; got != nil {
		t.Errorf("got Idempotency-Key %q, want none", got)
	}
}

func TestClose(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true})
	s.CreateKey("kek")
	c := dial(t, s, nil)
	if err := encrypt(bounded(t), c); err != nil {
		t.Fatal(err)
	}

	// A running call keeps its connection and gets its answer.
	release := s.Hang()
	result := make(chan error, 1)
	go func() { result <- encrypt(bounded(t), c) }()
	if err := s.WaitInFlight(bounded(t), 1); err != nil {
		t.Fatal(err)
	}
	c.Close()
	release()
	if err := <-result; err != nil {
		t.Errorf("a call under way: %v", err)
	}

	c.Close()
	if err := s.WaitConnections(bounded(t), 0); err != nil {
		t.Error(err)
	}
}

// Close must not close a transport that the caller owns.
func TestCloseWithForeignTransport(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	c := dial(t, s, func(cfg *vault.Config) { cfg.Transport = s.RoundTripper() })
	c.Close()
	if err := encrypt(bounded(t), c); err != nil {
		t.Error(err)
	}
}

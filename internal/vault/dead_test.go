// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// Firewalls, NATs and load balancers forget connections without a word to the client. The caller has kube-apiserver's
// deadline in mind, so its request makes one attempt of 1.5 s, and another one in the second that is left.
func TestDeadPool(t *testing.T) {
	const pooled = 128
	for name, lose := range map[string]func(s *vaulttest.Server, old *sync.Map){
		"packets vanish": func(s *vaulttest.Server, _ *sync.Map) { s.LoseConnections() },
		// A load balancer that has lost its side of the connections still acknowledges.
		"no answers": func(s *vaulttest.Server, old *sync.Map) {
			s.Inject(vaulttest.Fault{Hang: true, Match: func(_ string, r *http.Request) bool {
				_, lost := old.Load(r.RemoteAddr)
				return lost
			}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := vaulttest.Start(t)
			s.CreateKey("kek")
			c := dial(t, s, nil)
			var old sync.Map // by client address
			remove := s.Intercept(func(_ string, _ http.ResponseWriter, r *http.Request) bool {
				old.Store(r.RemoteAddr, nil)
				return false
			})
			burst(t, s, c, pooled)
			remove()
			lose(s, &old)

			start := time.Now()
			failed := 0
			for within := 1500 * time.Millisecond; ; within = 2500*time.Millisecond - within {
				ctx, cancel := context.WithTimeout(bounded(t), within)
				err := encrypt(ctx, c)
				cancel()
				if err == nil {
					break
				}
				if failed++; time.Since(start) > 5*time.Second {
					t.Fatalf("no success within 5s: %v", err)
				}
			}
			t.Logf("the first success came after %v and %d failed calls", time.Since(start), failed)
		})
	}
}

// A call with a longer deadline than a request's does not wait for it: the kernel gives up the connection, and the
// call is repeated on a new one.
func TestDeadPoolAndPatientCall(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	c := dial(t, s, nil)
	burst(t, s, c, 8)
	s.LoseConnections()
	s.ResetCounts()
	start := time.Now()
	if err := encrypt(bounded(t), c); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v, want 5s at most", took)
	}
	if got := s.ConnectionsOpened(); got != 1 {
		t.Errorf("got %d new connections, want 1", got)
	}
}

// A node that answers others while a call times out is slow, not unreachable.
func TestTimeoutAtSlowVaultKeepsConnections(t *testing.T) {
	t.Parallel()
	const callers = 32
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	c := dial(t, s, nil)
	burst(t, s, c, callers)
	s.ResetCounts()
	defer s.Inject(vaulttest.Fault{Hang: true, Match: vaulttest.Ops(vaulttest.OpReadKey)})()
	ctx, cancel := context.WithTimeout(bounded(t), 2*time.Second)
	defer cancel()
	late := make(chan error, 1)
	go func() { _, err := c.ReadKey(ctx, "kek"); late <- err }()
	if err := s.WaitInFlight(bounded(t), 1); err != nil {
		t.Fatal(err)
	}
	if err := encrypt(bounded(t), c); err != nil {
		t.Error(err)
	}
	if err := <-late; fault.ClassOf(err) != fault.Timeout {
		t.Errorf("got %v, want class %s", err, fault.Timeout)
	}
	burst(t, s, c, callers)
	// HTTP/1.1 gives up the connection of a call that times out.
	if got := s.ConnectionsOpened(); got > callers/2 {
		t.Errorf("got %d new connections, want one, or few", got)
	}
}

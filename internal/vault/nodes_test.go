// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

const (
	sealed        = `{"errors":["Vault is sealed"]}`
	sealedText    = "encrypting with transit/kek at ADDRESS: vault is sealed or has no active node (503)"
	redirectsText = "vault redirected the request, which is never followed with the token; use an address that reaches the active node"
)

// cluster starts n nodes of one Vault with the key kek.
func cluster(t *testing.T, n int, options vaulttest.Options) []*vaulttest.Server {
	t.Helper()
	nodes := []*vaulttest.Server{vaulttest.Start(t, options)}
	nodes[0].CreateKey("kek")
	options.Join = nodes[0]
	for len(nodes) < n {
		nodes = append(nodes, vaulttest.Start(t, options))
	}
	return nodes
}

// dialAll returns a client of all nodes that starts with the first one.
func dialAll(t *testing.T, nodes []*vaulttest.Server) *vault.Client {
	t.Helper()
	return dial(t, nodes[0], func(cfg *vault.Config) {
		var authorities [][]byte
		cfg.Addresses = nil
		for _, node := range nodes {
			cfg.Addresses = append(cfg.Addresses, node.URL())
			authorities = append(authorities, node.CAPEM())
		}
		if cfg.CACert != nil {
			cfg.CACert = bytes.Join(authorities, nil)
		}
	})
}

// wantNext checks to which node the next call goes.
func wantNext(t *testing.T, c *vault.Client, node *vaulttest.Server) {
	t.Helper()
	if got, want := c.Address(), node.URL(); got != want {
		t.Errorf("next to be asked: got %s, want %s", got, want)
	}
}

func TestFirstNodeDown(t *testing.T) {
	for _, options := range []vaulttest.Options{{}, {TLS: true}} {
		nodes := cluster(t, 2, options)
		c := dialAll(t, nodes)
		wantNext(t, c, nodes[0])
		nodes[0].Stop()
		wantErrorAt(t, nodes[0].URL(), encrypt(bounded(t), c), fault.Unavailable,
			"encrypting with transit/kek at ADDRESS: dial tcp HOST: connect: connection refused")
		ciphertext, _, err := c.Encrypt(bounded(t), "kek", 0, []byte("seed"), nil)
		if err != nil {
			t.Fatal(err)
		}
		// A working node is kept, even when the first one has recovered.
		if err := nodes[0].Start(); err != nil {
			t.Fatal(err)
		}
		if plaintext, err := c.Decrypt(bounded(t), "kek", ciphertext, nil); err != nil || string(plaintext) != "seed" {
			t.Errorf("decrypting: got %q, %v", plaintext, err)
		}
		if key, err := c.ReadKey(bounded(t), "kek"); err != nil || key.Latest != 1 {
			t.Errorf("reading the key: got %+v, %v", key, err)
		}
		if _, err := c.LookupSelf(bounded(t)); err != nil {
			t.Errorf("looking up the token: %v", err)
		}
		if first, second := nodes[0].Total(), nodes[1].Total(); first != 0 || second != 4 {
			t.Errorf("got %d and %d requests, want 0 and 4", first, second)
		}
		wantNext(t, c, nodes[1])
	}
}

// Each row is a failure of the first node: its class, and whether the next call goes to the second one. The failed
// call is not repeated.
func TestWhatSpeaksAgainstANode(t *testing.T) {
	status := func(code int, body string) func(*vaulttest.Server) {
		return func(s *vaulttest.Server) { s.FailNext(0, code, body) }
	}
	for name, test := range map[string]struct {
		fault func(*vaulttest.Server)
		class fault.Class
		moves bool
	}{
		"reset":           {func(s *vaulttest.Server) { s.Cut(0) }, fault.Unavailable, true},
		"not Vault":       {func(s *vaulttest.Server) { s.HTML("<html>") }, fault.Unavailable, true},
		"internal error":  {status(500, ""), fault.Unavailable, true},
		"redirect":        {redirect(307), fault.Unavailable, true},
		"sealed":          {(*vaulttest.Server).Seal, fault.Sealed, true},
		"no active node":  {status(503, `{"errors":["no active Vault instance found"]}`), fault.Sealed, true},
		"lags":            {status(412, ""), fault.VersionTooNew, true},
		"version too new": {status(400, `{"errors":["requested version for encryption is higher than the latest key version"]}`), fault.VersionTooNew, true},
		"throttled":       {func(s *vaulttest.Server) { s.Throttle() }, fault.Throttled, false},
		"denied":          {status(403, ""), fault.Denied, false},
		"key lost":        {status(400, `{"errors":["encryption key not found"]}`), fault.KeyLost, false},
		"version too old": {status(400, `{"errors":["requested version for encryption is less than the minimum encryption key version"]}`), fault.VersionTooOld, false},
		"malformed":       {status(400, `{"errors":["something new"]}`), fault.Invalid, false},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := cluster(t, 2, vaulttest.Options{})
			c := dialAll(t, nodes)
			test.fault(nodes[0])
			if got := fault.ClassOf(encrypt(bounded(t), c)); got != test.class {
				t.Errorf("got class %q, want %q", got, test.class)
			}
			if first, second := nodes[0].Total(), nodes[1].Total(); first != 1 || second != 0 {
				t.Errorf("got %d and %d requests, want 1 and none", first, second)
			}
			if test.moves {
				wantNext(t, c, nodes[1])
			} else {
				wantNext(t, c, nodes[0])
			}
		})
	}
}

// A cancelled call, or one with an expired deadline, says nothing about the node.
func TestCallersOwnEndKeepsTheNode(t *testing.T) {
	nodes := cluster(t, 2, vaulttest.Options{})
	c := dialAll(t, nodes)
	nodes[0].Hang()
	ctx, cancel := context.WithCancel(bounded(t))
	defer cancel()
	failure := make(chan error, 1)
	go func() { failure <- encrypt(ctx, c) }()
	if err := nodes[0].WaitInFlight(bounded(t), 1); err != nil {
		t.Fatal(err)
	}
	cancel()
	wantErrorAt(t, nodes[0].URL(), <-failure, fault.Canceled, "encrypting with transit/kek at ADDRESS: canceled by the caller")
	wantNext(t, c, nodes[0])

	late, cancel := context.WithDeadline(bounded(t), time.Now().Add(-time.Second))
	defer cancel()
	wantErrorAt(t, nodes[0].URL(), encrypt(late, c), fault.Timeout, "encrypting with transit/kek at ADDRESS: vault did not answer in time")
	wantNext(t, c, nodes[0])
}

func TestHangingNode(t *testing.T) {
	nodes := cluster(t, 2, vaulttest.Options{})
	c := dialAll(t, nodes)
	nodes[0].Hang()
	ctx, cancel := context.WithTimeout(bounded(t), 2*time.Second)
	defer cancel()
	wantErrorAt(t, nodes[0].URL(), encrypt(ctx, c), fault.Timeout, "encrypting with transit/kek at ADDRESS: vault did not answer in time")
	if err := encrypt(bounded(t), c); err != nil {
		t.Error(err)
	}
	if got := nodes[1].Total(); got != 1 {
		t.Errorf("got %d requests at the second node, want 1", got)
	}
}

// A redirect passes the token neither to the target node nor to another host; the node gets its own call next.
func TestRedirectingStandby(t *testing.T) {
	stranger := vaulttest.Start(t)
	nodes := cluster(t, 2, vaulttest.Options{})
	for _, target := range []*vaulttest.Server{nodes[1], stranger} {
		remove := nodes[0].RedirectTo(target.URL())
		for what, call := range map[string]func(*vault.Client) error{
			"encrypting with transit/kek": func(c *vault.Client) error { return encrypt(bounded(t), c) },
			"decrypting with transit/kek": func(c *vault.Client) error {
				_, err := c.Decrypt(bounded(t), "kek", []byte("vault:v1:AAAA"), nil)
				return err
			},
			"reading key transit/kek": func(c *vault.Client) error { _, err := c.ReadKey(bounded(t), "kek"); return err },
			"looking up the token":    func(c *vault.Client) error { _, err := c.LookupSelf(bounded(t)); return err },
		} {
			nodes[1].ResetCounts()
			c := dialAll(t, nodes)
			wantErrorAt(t, nodes[0].URL(), call(c), fault.Unavailable, what+" at ADDRESS: "+redirectsText)
			if target.Total() != 0 || target.ConnectionsOpened() != 0 {
				t.Errorf("%s: the redirect was followed", what)
			}
			if err := encrypt(bounded(t), c); err != nil {
				t.Errorf("%s: the next call: %v", what, err)
			}
			if got := nodes[1].Total(); got != 1 {
				t.Errorf("%s: got %d requests at the second node, want the next call's", what, got)
			}
		}
		remove()
	}
}

// Many concurrent failures at one node skip it once: they must not also skip its healthy neighbour.
func TestBurstPassesANodeOnce(t *testing.T) {
	const callers = 50
	nodes := cluster(t, 3, vaulttest.Options{})
	c := dialAll(t, nodes)
	release := nodes[0].Hang()
	nodes[0].FailNext(0, 503, sealed)
	nodes[2].Seal()
	var calls sync.WaitGroup
	for range callers {
		calls.Go(func() { wantErrorAt(t, nodes[0].URL(), encrypt(bounded(t), c), fault.Sealed, sealedText) })
	}
	if err := nodes[0].WaitInFlight(bounded(t), callers); err != nil {
		t.Fatal(err)
	}
	release()
	calls.Wait()
	wantNext(t, c, nodes[1])
	for range callers {
		calls.Go(func() {
			if err := encrypt(bounded(t), c); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if got := nodes[2].Total(); got != 0 {
		t.Errorf("got %d requests at the third node, want none", got)
	}
}

// A node is tried again after a while, also if it is the only one.
func TestTurnsGoRound(t *testing.T) {
	for n := 1; n <= 3; n++ {
		nodes := cluster(t, n, vaulttest.Options{})
		c := dialAll(t, nodes)
		for i := range 2 * n {
			failing, next := nodes[i%n], nodes[(i+1)%n]
			if err := encrypt(bounded(t), c); err != nil {
				t.Errorf("%d nodes: %v", n, err)
			}
			failing.Seal()
			wantErrorAt(t, failing.URL(), encrypt(bounded(t), c), fault.Sealed, sealedText)
			failing.Unseal()
			wantNext(t, c, next)
		}
	}
}

// A late failure is not counted against a node that has become current again.
func TestLateFailure(t *testing.T) {
	nodes := cluster(t, 2, vaulttest.Options{})
	c := dialAll(t, nodes)
	// Not Hang and WaitInFlight: a request is in flight before it has met a fault, and the next one might be held
	// instead.
	held, release := make(chan struct{}), make(chan struct{})
	nodes[0].Inject(vaulttest.Fault{Times: 1, Handle: func(string, http.ResponseWriter, *http.Request) bool {
		close(held)
		<-release
		return false
	}})
	nodes[0].FailNext(2, 503, sealed)
	nodes[1].FailNext(1, 503, sealed)
	late := make(chan error, 1)
	go func() { late <- encrypt(bounded(t), c) }()
	<-held
	for _, node := range nodes {
		wantErrorAt(t, node.URL(), encrypt(bounded(t), c), fault.Sealed, sealedText)
	}
	close(release)
	wantErrorAt(t, nodes[0].URL(), <-late, fault.Sealed, sealedText)
	wantNext(t, c, nodes[0])
}

func TestCloseCoversAllNodes(t *testing.T) {
	nodes := cluster(t, 2, vaulttest.Options{TLS: true})
	c := dialAll(t, nodes)
	nodes[0].FailNext(1, 503, sealed)
	_ = encrypt(bounded(t), c) // fails and leaves its connection in the pool
	if err := encrypt(bounded(t), c); err != nil {
		t.Fatal(err)
	}
	for i, node := range nodes {
		if got := node.ConnectionsOpened(); got != 1 {
			t.Errorf("node %d: got %d connections, want 1", i, got)
		}
	}
	c.Close()
	for i, node := range nodes {
		if err := node.WaitConnections(bounded(t), 0); err != nil {
			t.Errorf("node %d: %v", i, err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Each row is a fault between client and Vault, with its class, error text and number of requests, which is never
// more than one.
func TestFaults(t *testing.T) {
	const (
		foreign   = "the response is not from Vault; check what listens at this address"
		empty     = "unexpected response from Vault: no data"
		cutShort  = "vault closed the connection before answering"
		redirects = "vault redirected the request, which is never followed with the token; use an address that reaches the active node"
	)
	status := func(code int, body string) func(*vaulttest.Server) {
		return func(s *vaulttest.Server) { s.FailNext(0, code, body) }
	}
	respond := func(code int, body string) func(*vaulttest.Server) {
		return func(s *vaulttest.Server) { s.Intercept(answer(code, body)) }
	}
	tests := map[string]struct {
		fault   func(*vaulttest.Server)
		class   fault.Class
		text    string
		arrived int
	}{
		"stopped":          {(*vaulttest.Server).Stop, fault.Unavailable, "dial tcp HOST: connect: connection refused", 0},
		"reset":            {func(s *vaulttest.Server) { s.Cut(0) }, fault.Unavailable, "read tcp LOCAL->HOST: read: connection reset by peer", 1},
		"EOF":              {func(s *vaulttest.Server) { s.Intercept(abort) }, fault.Unavailable, cutShort, 1},
		"EOF mid-body":     {func(s *vaulttest.Server) { s.Inject(vaulttest.Fault{Cut: vaulttest.CutBody}) }, fault.Unavailable, cutShort, 1},
		"HTML 200":         {func(s *vaulttest.Server) { s.HTML("<html>Log in</html>") }, fault.Unavailable, foreign, 1},
		"JSON list 200":    {respond(200, `[1]`), fault.Unavailable, foreign, 1},
		"JSON null 200":    {respond(200, `null`), fault.Unavailable, empty, 1},
		"null data 200":    {respond(200, `{"data":null}`), fault.Unavailable, empty, 1},
		"empty 200":        {respond(200, ""), fault.Unavailable, empty, 1},
		"empty 204":        {respond(204, ""), fault.Unavailable, empty, 1},
		"303":              {redirect(303), fault.Unavailable, empty, 1},
		"308":              {redirect(308), fault.Unavailable, empty, 1},
		"301":              {redirect(301), fault.Unavailable, redirects, 1},
		"307 nowhere":      {respond(307, ""), fault.Unavailable, redirects, 1},
		"400 page":         {status(400, "<html>Bad Request</html>"), fault.Unavailable, "the answer is not Vault's: 400 Bad Request; check for a proxy, a firewall or another server at this address", 1},
		"400 cut off":      {respond(400, strings.Repeat("x", 2<<20)), fault.Unavailable, "the answer is not Vault's: 400 Bad Request; check for a proxy, a firewall or another server at this address", 1},
		"400 DR secondary": {status(400, `{"errors":["path disabled in replication DR secondary mode"]}`), fault.Unavailable, "this is a DR secondary (400); use the address of the primary", 1},
		"400 no token":     {status(400, `{"errors":["missing client token"]}`), fault.Unavailable, "the token did not reach Vault (400); check for a proxy that removes it", 1},
		"400 unknown":      {status(400, `{"errors":["something new"]}`), fault.Unavailable, "vault refused the request (400) for a reason that trousseau does not know; see Vault's audit log", 1},
		"400 gateway":      {status(400, `{"message":"bad request"}`), fault.Unavailable, "the answer is not Vault's: 400 Bad Request; check for a proxy, a firewall or another server at this address", 1},
		"401 page":         {status(401, "<html>"), fault.Unavailable, "the answer is not Vault's: 401 Unauthorized; check for a proxy, a firewall or another server at this address", 1},
		"403 page":         {status(403, "<html>Forbidden by WAF</html>"), fault.Unavailable, "the answer is not Vault's: 403 Forbidden; check for a proxy, a firewall or another server at this address", 1},
		"403 origin":       {status(403, `{"errors":["origin not allowed"]}`), fault.Unavailable, "the answer is not Vault's: 403 Forbidden; check for a proxy, a firewall or another server at this address", 1},
		"404 no route":     {status(404, `{"errors":["no handler for route \"transit/encrypt/kek\". route entry not found."]}`), fault.Unavailable, "nothing is mounted at this path (404); check the address, namespace and mount", 1},
		"412":              {status(412, `{"errors":["required index state not present"]}`), fault.Unavailable, "this Vault node is behind in replication (412)", 1},
		"413":              {status(413, ""), fault.Unavailable, "the answer is not Vault's: 413 Request Entity Too Large; check for a proxy, a firewall or another server at this address", 1},
		"429 quota":        {func(s *vaulttest.Server) { s.Throttle() }, fault.Throttled, "rate limit exceeded (429)", 1},
		"429 page":         {status(429, "slow down"), fault.Throttled, "rate limit exceeded (429)", 1},
		"500":              {func(s *vaulttest.Server) { s.FailRate(1, 1) }, fault.Unavailable, "vault answered 500 Internal Server Error", 1},
		"501":              {status(501, ""), fault.Unavailable, "vault answered 501 Not Implemented", 1},
		"502":              {status(502, "<html>Bad Gateway</html>"), fault.Unavailable, "vault answered 502 Bad Gateway", 1},
		"503 sealed":       {(*vaulttest.Server).Seal, fault.Sealed, "vault is sealed or has no active node (503)", 1},
		"503 no active":    {status(503, `{"errors":["no active Vault instance found"]}`), fault.Sealed, "vault is sealed or has no active node (503)", 1},
		"503 other":        {status(503, `{"errors":["overloaded, try again later"]}`), fault.Unavailable, "vault answered 503 Service Unavailable", 1},
		"503 page":         {status(503, "<html>No server is available</html>"), fault.Unavailable, "vault answered 503 Service Unavailable", 1},
		"504":              {status(504, ""), fault.Unavailable, "vault answered 504 Gateway Timeout", 1},
		"unknown status":   {status(599, ""), fault.Unavailable, "vault answered 599 ", 1},
		"2 MiB 200":        {respond(200, `{"data":{"x":"`+strings.Repeat("x", 2<<20)+`"}}`), fault.Unavailable, "the response is larger than 1048576 bytes", 1},
		"2 MiB 503":        {respond(503, strings.Repeat("x", 2<<20)), fault.Unavailable, "vault answered 503 Service Unavailable", 1},
		"a byte over":      {respond(200, strings.Repeat(" ", 1<<20+1)), fault.Unavailable, "the response is larger than 1048576 bytes", 1},
		"not a byte over":  {respond(200, strings.Repeat(" ", 1<<20-4)+"null"), fault.Unavailable, empty, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t)
			s.CreateKey("kek")
			test.fault(s)
			// A separate client each: on a used connection, net/http would retry the request.
			post, get := dial(t, s, nil), dial(t, s, nil)
			wantError(t, post, encrypt(bounded(t), post), test.class, "encrypting with transit/kek at ADDRESS: "+test.text)
			_, err := get.ReadKey(bounded(t), "kek")
			wantError(t, get, err, test.class, "reading key transit/kek at ADDRESS: "+test.text)
			for _, op := range []string{vaulttest.OpEncrypt, vaulttest.OpReadKey} {
				if got := s.Count(op); got != test.arrived {
					t.Errorf("%s: got %d requests, want %d", op, got, test.arrived)
				}
			}
		})
	}
}

func abort(string, http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }

func redirect(code int) func(*vaulttest.Server) {
	return func(s *vaulttest.Server) {
		s.Intercept(func(_ string, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", "http://"+r.Host+"/v1/elsewhere")
			w.WriteHeader(code)
			return true
		})
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	s, target := vaulttest.Start(t), vaulttest.Start(t)
	s.RedirectTo(target.URL())
	c := dial(t, s, nil)
	const reason = "vault redirected the request, which is never followed with the token; use an address that reaches the active node"
	wantError(t, c, encrypt(bounded(t), c), fault.Unavailable, "encrypting with transit/kek at ADDRESS: "+reason)
	_, err := c.LookupSelf(bounded(t))
	wantError(t, c, err, fault.Unavailable, "looking up the token at ADDRESS: "+reason)
	if s.Total() != 2 || target.Total() != 0 || target.ConnectionsOpened() != 0 {
		t.Errorf("got %d requests and %d at the target, want 2 and none", s.Total(), target.Total())
	}
}

func TestCancel(t *testing.T) {
	s := vaulttest.Start(t)
	c := dial(t, s, nil)
	s.Hang()
	ctx, cancel := context.WithCancel(bounded(t))
	go func() {
		defer cancel()
		if err := s.WaitInFlight(ctx, 1); err != nil {
			t.Error(err)
		}
	}()
	wantError(t, c, encrypt(ctx, c), fault.Canceled, "encrypting with transit/kek at ADDRESS: canceled by the caller")
	wantError(t, c, encrypt(ctx, c), fault.Canceled, "encrypting with transit/kek at ADDRESS: canceled by the caller")
	if got := s.Count(vaulttest.OpEncrypt); got != 1 {
		t.Errorf("got %d requests, want 1", got)
	}
}

func TestDeadline(t *testing.T) {
	s := vaulttest.Start(t)
	c := dial(t, s, nil)
	s.Hang()
	ctx, cancel := context.WithTimeout(bounded(t), 100*time.Millisecond)
	defer cancel()
	wantError(t, c, encrypt(ctx, c), fault.Timeout, "encrypting with transit/kek at ADDRESS: vault did not answer in time")
}

// In a bubble, waiting takes no real time, so the test can check how long a call waits.
func TestHowLongACallWaits(t *testing.T) {
	for name, test := range map[string]struct{ deadline, want time.Duration }{
		"its deadline": {3 * time.Second, 3 * time.Second},
		"no deadline":  {0, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := vaulttest.Start(t, vaulttest.Options{InProcess: true})
				c := dial(t, s, func(cfg *vault.Config) { cfg.Transport = s.RoundTripper() })
				s.Hang()
				ctx := t.Context()
				if test.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				start := time.Now()
				wantError(t, c, encrypt(ctx, c), fault.Timeout, "encrypting with transit/kek at ADDRESS: vault did not answer in time")
				if got := time.Since(start); got != test.want {
					t.Errorf("waited %v, want %v", got, test.want)
				}
				if got := s.Total(); got != 1 {
					t.Errorf("got %d requests, want 1", got)
				}
			})
		})
	}
}

// A server that is not a web server, for example behind a wrong port.
func TestNotHTTP(t *testing.T) {
	s := vaulttest.Start(t)
	address := listen(t, func(conn net.Conn) {
		// Before a request, net/http would not accept this as its answer.
		_, _ = conn.Read(make([]byte, 1))
		_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.9\r\n")
	})
	c := dial(t, s, func(cfg *vault.Config) { cfg.Addresses = []string{"http://" + address} })
	wantError(t, c, encrypt(bounded(t), c), fault.Unavailable,
		"encrypting with transit/kek at ADDRESS: the response is not from Vault; check what listens at this address")
}

// listen serves each connection with serve, then closes it after the client has, and returns the address.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				serve(conn)
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return l.Addr().String()
}

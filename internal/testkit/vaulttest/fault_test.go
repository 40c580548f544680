// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// Faults must look the same over every transport.
var transports = map[string]vaulttest.Options{
	"HTTP/1.1":   {},
	"HTTP/2":     {TLS: true},
	"in process": {InProcess: true},
}

func forEachTransport(t *testing.T, test func(t *testing.T, s *vaulttest.Server, c *caller)) {
	for name, options := range transports {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t, options)
			s.CreateKey("kek")
			c := newCaller(t, s, s.KMSToken("kek"))
			if options.InProcess {
				c.client.Transport = s.RoundTripper()
			}
			test(t, s, c)
		})
	}
}

func TestAnswerFaults(t *testing.T) {
	forEachTransport(t, func(t *testing.T, s *vaulttest.Server, c *caller) {
		s.FailNext(2, 500, "")
		s.FailNext(1, 502, "bad gateway")
		c.want(500, "GET", "transit/keys/kek", nil, "internal server error")
		c.want(500, "GET", "transit/keys/kek", nil, "internal server error")
		if a := c.want(502, "GET", "transit/keys/kek", nil); a.raw != "bad gateway" {
			t.Errorf("FailNext with a body: got %q", a.raw)
		}
		c.want(200, "GET", "transit/keys/kek", nil)

		remove := s.Throttle()
		c.want(429, "GET", "transit/keys/kek", nil, `request path "transit/keys/kek": rate limit quota exceeded`)
		remove()
		remove()

		remove = s.HTML("<html>")
		if a := c.do("GET", "transit/keys/kek", nil); a.status != 200 || a.raw != "<html>" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
			t.Errorf("HTML: got %d %q %q", a.status, a.header.Get("Content-Type"), a.raw)
		}
		remove()

		remove = s.RedirectTo("https://other.example:8200")
		if a := c.do("GET", "transit/keys/kek?x=1", nil); a.status != 307 || a.header.Get("Location") != "https://other.example:8200/v1/transit/keys/kek?x=1" {
			t.Errorf("RedirectTo: got %d to %q", a.status, a.header.Get("Location"))
		}
		remove()
		c.want(200, "GET", "transit/keys/kek", nil)
	})
}

func TestCut(t *testing.T) {
	forEachTransport(t, func(t *testing.T, s *vaulttest.Server, c *caller) {
		c.want(200, "GET", "transit/keys/kek", nil)
		c.client.CloseIdleConnections() // a broken idle connection would be replaced and the request repeated silently
		s.Cut(1)
		if _, err := c.try(t.Context(), "POST", "transit/encrypt/kek", fields{"plaintext": ""}); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("CutReset: got %v", err)
		}
		c.want(200, "GET", "transit/keys/kek", nil)

		s.Inject(vaulttest.Fault{Times: 1, Cut: vaulttest.CutBody, Match: vaulttest.Ops(vaulttest.OpRotateKey)})
		c.token = s.RootToken()
		a, err := c.try(t.Context(), "POST", "transit/keys/kek/rotate", nil)
		if err == nil {
			t.Errorf("CutBody: got %d and %d bytes, want an error", a.status, len(a.raw))
		}
		if got := s.Transit().Key("kek").Rotate(); got != 3 {
			t.Errorf("CutBody: Vault did not handle the request: the next version is %d, want 3", got)
		}
		c.want(200, "GET", "transit/keys/kek", nil)
	})
}

func TestHang(t *testing.T) {
	forEachTransport(t, func(t *testing.T, s *vaulttest.Server, c *caller) {
		release := s.Hang()
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 3)
		var requests sync.WaitGroup
		for i := range 3 {
			requests.Go(func() {
				ctx := ctx
				if i > 0 {
					ctx = context.WithoutCancel(ctx)
				}
				_, err := c.try(ctx, "POST", "transit/encrypt/kek", fields{"plaintext": ""})
				results <- err
			})
		}
		if err := s.WaitInFlight(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		if s.InFlight() != 3 || s.Count(vaulttest.OpEncrypt) != 3 {
			t.Errorf("hanging: %d in flight, %d counted; want 3", s.InFlight(), s.Count(vaulttest.OpEncrypt))
		}
		cancel()
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled caller: got %v", err)
		}
		release()
		for range 2 {
			if err := <-results; err != nil {
				t.Errorf("released: got %v", err)
			}
		}
		requests.Wait()
		if err := s.WaitIdle(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestFailRateRepeats(t *testing.T) {
	run := func() string {
		s := vaulttest.Start(t)
		s.FailRate(0.3, 7)
		c := newCaller(t, s, "")
		var pattern strings.Builder
		for range 60 {
			fmt.Fprint(&pattern, c.do("GET", "sys/health", nil).status/100)
		}
		return pattern.String()
	}
	first := run()
	if failed := strings.Count(first, "5"); failed < 6 || failed > 30 {
		t.Errorf("%d of 60 failed, want about 18", failed)
	}
	if second := run(); second != first {
		t.Errorf("same seed, other pattern:\n%s\n%s", first, second)
	}
}

func TestMatchAndIntercept(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	c := newCaller(t, s, s.KMSToken("kek"))
	body := make(chan string, 1)
	s.Intercept(func(op string, _ http.ResponseWriter, r *http.Request) bool {
		if op == vaulttest.OpEncrypt {
			raw, _ := io.ReadAll(r.Body)
			body <- string(raw)
		}
		return false
	})
	s.Inject(vaulttest.Fault{Status: 503, Match: func(op string, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		return op == vaulttest.OpDecrypt
	}})
	c.encrypt("kek", "seed")
	if got, want := <-body, `{"plaintext":"`+b64("seed")+`"}`; got != want {
		t.Errorf("Intercept read %q, want %q", got, want)
	}
	c.want(503, "POST", "transit/decrypt/kek", fields{}, "service unavailable")
	c.want(200, "GET", "transit/keys/kek", nil)
	s.ClearFaults()
	c.want(400, "POST", "transit/decrypt/kek", fields{})
}

func TestStopFromIntercept(t *testing.T) {
	s := vaulttest.Start(t)
	s.Intercept(func(string, http.ResponseWriter, *http.Request) bool {
		s.Stop()
		return false
	})
	if _, err := newCaller(t, s, "").try(t.Context(), "GET", "sys/health", nil); err == nil {
		t.Error("got an answer from a Vault that stopped before it")
	}
}

func TestLoseConnections(t *testing.T) {
	for _, options := range []vaulttest.Options{{}, {TLS: true}} {
		s := vaulttest.Start(t, options)
		c := newCaller(t, s, "")
		c.want(200, "GET", "sys/health", nil)
		s.LoseConnections()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if _, err := c.try(ctx, "GET", "sys/health", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("TLS %v: the old connection: got %v, want a timeout", options.TLS, err)
		}
		cancel()
		// HTTP/2 may not have noticed yet that the old connection is idle, to close it.
		newCaller(t, s, "").want(200, "GET", "sys/health", nil)
		if got := s.Total(); got != 2 {
			t.Errorf("TLS %v: got %d requests, want 2: the second must not arrive", options.TLS, got)
		}
	}
}

func TestCounts(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true})
	s.CreateKey("kek")
	c := newCaller(t, s, s.KMSToken("kek"))
	ciphertext := c.encrypt("kek", "seed")
	c.decrypt("kek", ciphertext)
	c.decrypt("kek", ciphertext)
	c.do("GET", "transit/keys/kek", nil)
	c.do("GET", "auth/token/lookup-self", nil)
	c.do("PUT", "auth/token/renew-self", nil)
	c.do("POST", "nowhere/decrypt/kek", nil)
	s.FailNext(1, 500, "")
	c.do("GET", "sys/health", nil)
	for op, want := range map[string]int{
		vaulttest.OpEncrypt: 1, vaulttest.OpDecrypt: 3, vaulttest.OpReadKey: 1, vaulttest.OpLookupSelf: 1,
		vaulttest.OpRenewSelf: 1, vaulttest.OpHealth: 1, vaulttest.OpRotateKey: 0,
	} {
		if got := s.Count(op); got != want {
			t.Errorf("Count(%s): got %d, want %d", op, got, want)
		}
	}
	if s.Total() != 8 || s.ConnectionsOpened() != 1 || s.Connections() != 1 {
		t.Errorf("got %d requests, %d connections opened, %d open; want 8, 1, 1", s.Total(), s.ConnectionsOpened(), s.Connections())
	}
	c.client.CloseIdleConnections()
	if err := s.WaitConnections(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	s.ResetCounts()
	if s.Total() != 0 || s.Count(vaulttest.OpDecrypt) != 0 || s.ConnectionsOpened() != 0 {
		t.Error("ResetCounts did not reset everything")
	}
	done := make(chan error, 1)
	go func() { done <- s.WaitCount(t.Context(), vaulttest.OpReadKey, 2) }()
	c.do("GET", "transit/keys/kek", nil)
	c.do("GET", "transit/keys/kek", nil)
	if err := <-done; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.WaitCount(ctx, vaulttest.OpReadKey, 3); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitCount with a cancelled context: got %v", err)
	}
}

func TestRoundTripperRefuses(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{InProcess: true})
	c := newCaller(t, s, s.RootToken())
	c.client.Transport = s.RoundTripper()
	s.Stop()
	if _, err := c.try(t.Context(), "GET", "sys/health", nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("stopped: got %v, want connection refused", err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	c.want(200, "GET", "sys/health", nil)
}

func TestBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := vaulttest.Start(t, vaulttest.Options{InProcess: true})
		s.CreateKey("kek")
		c := newCaller(t, s, s.CreateToken(vaulttest.TokenOptions{TTL: time.Hour, Rules: vaulttest.TransitPolicy("transit", "kek")}).ID)
		c.client = &http.Client{Transport: s.RoundTripper()}
		start := time.Now()

		remove := s.Inject(vaulttest.Fault{Delay: 20 * time.Minute})
		c.encrypt("kek", "seed")
		if got := time.Since(start); got != 20*time.Minute {
			t.Errorf("a delayed request took %v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.try(ctx, "GET", "transit/keys/kek", nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 20*time.Minute+time.Second {
			t.Errorf("got %v after %v, want the deadline after one second", err, time.Since(start))
		}
		remove()

		release := s.Hang()
		time.AfterFunc(10*time.Minute, release)
		c.want(200, "GET", "transit/keys/kek", nil)
		if got := time.Since(start); got != 30*time.Minute+time.Second {
			t.Errorf("a hanging request ended after %v", got)
		}
		time.Sleep(30 * time.Minute) // on the bubble's clock
		c.want(403, "GET", "transit/keys/kek", nil, deadToken)
	})
}

// SPDX-License-Identifier: Apache-2.0

package ops_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trousseau-io/trousseau/internal/daemon/ops"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server and returns its address and what stops it and returns Serve's error.
func serve(t *testing.T, o ops.Options) (addr string, stop func() error) {
	t.Helper()
	o.Addr = "127.0.0.1:0"
	s, err := ops.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	t.Cleanup(cancel)
	return s.Addr().String(), func() error {
		cancel()
		select {
		case err := <-served:
			return err
		case <-time.After(10 * time.Second):
			return errors.New("Serve still runs ten seconds after its context ended")
		}
	}
}

func TestServe(t *testing.T) {
	addr, stop := serve(t, ops.Options{})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + addr + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got, err := io.ReadAll(r.Body); err != nil || string(got) != "ok\n" || r.StatusCode != 200 {
		t.Errorf("/livez: %d %q %v, want 200 ok", r.StatusCode, got, err)
	}

	if err := stop(); err != nil {
		t.Errorf("Serve: %v, want nil at the end of its context", err)
	}
	if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting after the end: %v, want it refused", err)
	}
}

// A connection that never asks anything, and one that waits for its next request, do not hold up the end.
func TestServeEndsDespiteIdleConnections(t *testing.T) {
	addr, stop := serve(t, ops.Options{})
	silent, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	idle, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if _, err := fmt.Fprint(idle, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(idle), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()

	began := time.Now()
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the end took %s, want about a second at most", took)
	}
	if err := silent.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("reading from the silent connection: %v, want it closed by the server", err)
	}
}

func TestOversizedHeaderIsRefused(t *testing.T) {
	addr, stop := serve(t, ops.Options{})
	r, err := http.NewRequest("GET", "http://"+addr+"/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X", strings.Repeat("x", 32<<10))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d, want 431", response.StatusCode)
	}
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct{ addr, want string }{
		{taken.Addr().String(), "ops address " + taken.Addr().String() + " is taken; free it or choose another: "},
		{"", "ops address is empty; name one such as 127.0.0.1:8095"},
		{"127.0.0.1", "listening on ops address 127.0.0.1: "},
		{"127.0.0.1:99999", "listening on ops address 127.0.0.1:99999: "},
	} {
		if _, err := ops.New(t.Context(), ops.Options{Addr: tt.addr}); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("New(%q): %v, want %q", tt.addr, err, tt.want)
		}
	}
}

// A listener that breaks under Serve is reported, not taken for the end of the context.
func TestServeReportsBrokenListener(t *testing.T) {
	s, err := ops.New(t.Context(), ops.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx); err != nil {
		t.Errorf("Serve under a context that is done: %v, want nil", err)
	}
	if err := s.Serve(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "serving ops on "+s.Addr().String()) {
		t.Errorf("Serve of a closed server: %v, want an error naming the address", err)
	}
}

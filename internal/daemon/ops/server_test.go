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
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trousseau-io/trousseau/internal/daemon/ops"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server and returns its address, and a function that ends Serve and waits for it.
func serve(t *testing.T, o ops.Options) (addr string, stop func()) {
	t.Helper()
	o.Addr = "127.0.0.1:0"
	s := ops.Listen(t.Context(), o)
	if s.Addr() == "" {
		t.Fatal("no address")
	}
	return s.Addr(), run(t, s)
}

// run runs Serve until the returned function is called, or the test ends.
func run(t *testing.T, s *ops.Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve(ctx)
	}()
	t.Cleanup(cancel)
	return func() {
		t.Helper()
		cancel()
		select {
		case <-served:
		case <-time.After(10 * time.Second):
			t.Fatal("Serve still runs ten seconds after its context ended")
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

	stop()
	if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting after the end: %v, want it refused", err)
	}
}

// Idle connections, with and without an earlier request, do not delay the end.
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
	stop()
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
	stop()
}

// An unavailable address is logged once and retried; a server without an address serves nothing.
func TestAddressNotAvailable(t *testing.T) {
	for name, addr := range map[string]string{"no port": "127.0.0.1", "no such port": "127.0.0.1:99999"} {
		core, logs := observer.New(zap.InfoLevel)
		stop := run(t, ops.Listen(t.Context(), ops.Options{Addr: addr, Logger: zap.New(core)}))
		stop()
		if all := logs.All(); len(all) != 1 || !strings.Contains(fmt.Sprint(all[0].ContextMap()["error"]), "--ops-addr: listen tcp") {
			t.Errorf("%s: logged %v, want the reason why it does not listen", name, all)
		}
	}
	run(t, ops.Listen(t.Context(), ops.Options{}))()

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := taken.Addr().String()
	core, logs := observer.New(zap.InfoLevel)
	stop := run(t, ops.Listen(t.Context(), ops.Options{Addr: addr, Logger: zap.New(core)}))
	taken.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		r, err := client.Get("http://" + addr + "/livez")
		if err == nil {
			r.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("ten seconds after the address became free: %v", err)
		}
	}
	stop()
	if all := logs.All(); len(all) != 2 || all[0].Message != "ops endpoints unavailable, retrying; KMS is unaffected" || all[1].Message != "ops endpoints available" {
		t.Errorf("logged %v, want one failure and one success", all)
	}
}

// A listener that fails in Serve is logged, and not mistaken for the end of the context.
func TestServeReportsBrokenListener(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	s := ops.Listen(t.Context(), ops.Options{Addr: "127.0.0.1:0", Logger: zap.New(core)})
	run(t, s)()
	if logs.Len() != 0 {
		t.Errorf("the end of the context is logged: %v", logs.All())
	}
	s.Serve(t.Context()) // the listener is closed
	if all := logs.All(); len(all) != 1 || all[0].Message != "ops endpoints stopped; KMS is unaffected" {
		t.Errorf("logged %v, want that the endpoints stopped", all)
	}
}

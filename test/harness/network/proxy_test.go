// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/network"
)

// newEcho starts a proxy to a server that sends back what it receives. The server's
// ends of the connections arrive on the channel.
func newEcho(t *testing.T) (*network.Proxy, <-chan *net.TCPConn) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	accepted := make(chan *net.TCPConn, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn.(*net.TCPConn)
			go func() { _, _ = io.Copy(conn, conn) }()
		}
	}()
	p, err := network.NewProxy(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, accepted
}

func dial(t *testing.T, p *network.Proxy) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// exchange sends a byte and waits for it to come back.
func exchange(conn net.Conn, within time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte{1}); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	return err
}

const (
	here   = "127.0.0.1"
	enough = 10 * time.Second
	// brief is how long nothing must happen.
	brief = 100 * time.Millisecond
)

func TestForgottenConnectionIsSilent(t *testing.T) {
	p, accepted := newEcho(t)
	before := dial(t, p)
	if err := exchange(before, enough); err != nil {
		t.Fatal(err)
	}
	p.Forget()
	if err := exchange(before, brief); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("on a forgotten connection: got %v, want no answer", err)
	}
	(<-accepted).Close()
	if err := exchange(before, brief); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after its server has closed it: got %v, want no answer", err)
	}
	if err := exchange(dial(t, p), enough); err != nil {
		t.Errorf("on a new connection: %v", err)
	}
	if got := p.Connections(here); got != 2 {
		t.Errorf("got %d connections, want 2", got)
	}
	if got := p.Connections("127.0.0.2"); got != 0 {
		t.Errorf("got %d connections of another client, want none", got)
	}
	before.Close()
	for end := time.Now().Add(enough); p.Connections(here) != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("got %d connections after one was closed, want 1", p.Connections(here))
		}
	}
}

func TestResetIsPassedOn(t *testing.T) {
	p, accepted := newEcho(t)
	conn := dial(t, p)
	if err := exchange(conn, enough); err != nil {
		t.Fatal(err)
	}
	server := <-accepted
	if err := errors.Join(server.SetLinger(0), server.Close()); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(enough)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want ECONNRESET", err)
	}
}

func TestRefusedUntilPass(t *testing.T) {
	p, _ := newEcho(t)
	p.Refuse()
	if _, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refusing: got %v, want ECONNREFUSED", err)
	}
	if err := p.Pass(); err != nil {
		t.Fatal(err)
	}
	if err := exchange(dial(t, p), enough); err != nil {
		t.Errorf("passing again: %v", err)
	}
}

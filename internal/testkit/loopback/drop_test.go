// SPDX-License-Identifier: Apache-2.0

package loopback_test

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
)

func TestDropPackets(t *testing.T) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	for _, socket := range []any{listener, server} {
		if err := loopback.DropPackets(socket.(syscall.Conn)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Errorf("the client's kernel accepts bytes: %v", err)
	}
	if err := server.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection: got %d bytes, %v; want a timeout", n, err)
	}
	// Whether the dial's context or the socket's deadline is seen first is a race, and
	// they are different errors: both say that they are timeouts.
	var timeout net.Error
	if _, err := net.DialTimeout("tcp", listener.Addr().String(), 50*time.Millisecond); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("the listener: got %v, want a timeout", err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := loopback.DropPackets(server.(syscall.Conn)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed socket: got %v", err)
	}
}

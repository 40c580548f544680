// SPDX-License-Identifier: Apache-2.0

package loopback_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
)

// TestReserve checks that connections are refused until a server listens, that the
// server can restart, and that no other process gets the port until Release.
func TestReserve(t *testing.T) {
	port, err := loopback.Reserve("")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := net.Dial("tcp", port.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("no listener: %v", err)
		}
		server, err := net.Listen("tcp", port.Addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := net.Listen("tcp", port.Addr); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second server: %v", err)
		}
		if _, err := loopback.Reserve(port.Addr); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("reserving a port in use: %v", err)
		}
		client, err := net.Dial("tcp", port.Addr)
		if err != nil {
			t.Fatal(err)
		}
		client.Close()
		server.Close()
	}
	port.Release()
}

func TestReserveWhatIsNone(t *testing.T) {
	for _, addr := range []string{"localhost:80", "[::1]:0", "127.0.0.1"} {
		if _, err := loopback.Reserve(addr); err == nil {
			t.Errorf("%s: got no error", addr)
		}
	}
}

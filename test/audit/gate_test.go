// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"io"
	"net"
	"sync"
	"testing"
)

// gate is a proxy to a server. It pauses after the server has sent a number of bytes
// until it is opened, so that a test can act in the middle of an answer.
type gate struct {
	addr   string
	closed chan struct{} // closed when the gate pauses
	open   chan struct{}
	once   sync.Once
	left   int
}

func newGate(t *testing.T, target string, bytes int) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{addr: l.Addr().String(), closed: make(chan struct{}), open: make(chan struct{}), left: bytes}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			go func() { _, _ = io.Copy(server, client); server.Close() }()
			go func() { g.pass(client, server); client.Close() }()
		}
	}()
	return g
}

func (g *gate) pass(client io.Writer, server io.Reader) {
	buffer := make([]byte, 4096)
	for {
		n, err := server.Read(buffer)
		if err != nil {
			return
		}
		if g.left -= n; g.left < 0 {
			g.once.Do(func() { close(g.closed) })
			<-g.open
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The frame types and flags of RFC 9113 used by the attacks.
const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameContinuation = 0, 1, 3, 4, 6, 9
	endStream, endHeaders                                                            = 1, 4
)

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// hello is the start of a connection.
func hello() []byte {
	return append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(frameSettings, 0, 0, nil)...)
}

// field is a header field in HPACK without an index.
func field(name, value string) []byte {
	b := append([]byte{0, byte(len(name))}, name...)
	return append(append(b, byte(len(value))), value...)
}

// headers starts a request.
func headers(stream uint32, method string) []byte {
	return frame(frameHeaders, endHeaders, stream, slices.Concat(
		field(":method", "POST"), field(":scheme", "http"), field(":authority", "localhost"),
		field(":path", "/v2.KeyManagementService/"+method),
		field("content-type", "application/grpc"), field("te", "trailers"),
	))
}

// message is a gRPC message that announces size bytes and begins with part.
func message(stream uint32, size int, part []byte, flags byte) []byte {
	return frame(frameData, flags, stream, append(binary.BigEndian.AppendUint32([]byte{0}, uint32(size)), part...))
}

// whole is a complete request.
func whole(stream uint32) []byte {
	return append(headers(stream, "Status"), message(stream, 0, nil, endStream)...)
}

// manySettings is the largest valid SETTINGS frame.
func manySettings() []byte {
	const initialWindowSize = 4
	return frame(frameSettings, 0, 0, slices.Repeat([]byte{0, initialWindowSize, 0, 0, 0xff, 0xff}, 16<<10/6))
}

// attack is what several clients do, each on its own connection and with its own
// seed. It ends when it is complete or the connection is closed.
type attack struct {
	name    string
	clients int
	do      func(conn net.Conn, seed uint64)
	// again repeats the attack on a new connection whenever the server closes the old
	// one. Other attacks keep their connection, closed or not.
	again bool
}

func attacks() []attack {
	settings := manySettings()
	return []attack{
		{name: "garbage", clients: 64, do: func(conn net.Conn, seed uint64) {
			send(conn, garbage(seed))
		}},
		{name: "garbage after the preface", clients: 64, do: func(conn net.Conn, seed uint64) {
			send(conn, hello(), garbage(seed))
		}},
		{name: "silence", clients: 1000, do: func(net.Conn, uint64) {}},
		{name: "preface and silence", clients: 10_000, do: func(conn net.Conn, _ uint64) {
			send(conn, hello())
		}},
		{name: "one request and silence", clients: 1000, do: func(conn net.Conn, _ uint64) {
			send(conn, hello(), whole(1))
		}},
		{name: "half a frame", clients: 500, do: func(conn net.Conn, _ uint64) {
			send(conn, hello(), settings[:len(settings)/2])
		}},
		{name: "half a message", clients: 500, do: func(conn net.Conn, _ uint64) {
			send(conn, hello(), headers(1, "Encrypt"), message(1, 60<<10, make([]byte, 15<<10), 0))
		}},
		{name: "a byte each 10 ms", clients: 500, do: func(conn net.Conn, _ uint64) {
			for _, b := range append(hello(), whole(1)...) {
				time.Sleep(10 * time.Millisecond)
				send(conn, []byte{b})
			}
		}},
		{name: "opened and closed", clients: 2, do: func(conn net.Conn, _ uint64) {
			// Connect in bursts and wait until the server has accepted each: the behaviour
			// of a full backlog depends on the kernel.
			for i := range 200 {
				another, err := dial(conn.RemoteAddr().String())
				if err != nil {
					continue
				}
				if i == 199 {
					_, _ = another.Read(make([]byte, 1))
				}
				another.Close()
			}
		}, again: true},
		{name: "headers without end", clients: 4, do: func(conn net.Conn, _ uint64) {
			send(conn, hello(), frame(frameHeaders, 0, 1, field(":method", "POST")))
			flood(conn, frame(frameContinuation, 0, 1, slices.Repeat(field("x", strings.Repeat("x", 100)), 100)))
		}, again: true},
		{name: "SETTINGS", clients: 4, do: func(conn net.Conn, _ uint64) {
			send(conn, hello())
			flood(conn, settings)
		}, again: true},
		{name: "SETTINGS, unread", clients: 16, do: func(conn net.Conn, _ uint64) {
			send(conn, hello())
			fillPipe(conn)
			flood(conn, settings)
		}, again: true},
		{name: "PING", clients: 4, do: func(conn net.Conn, _ uint64) {
			send(conn, hello())
			flood(conn, slices.Repeat(frame(framePing, 0, 0, make([]byte, 8)), 100))
		}, again: true},
		{name: "requests, unread", clients: 4, do: requests(whole), again: true},
		{name: "rapid reset", clients: 4, do: requests(func(stream uint32) []byte {
			return append(headers(stream, "Encrypt"), frame(frameReset, 0, stream, make([]byte, 4))...)
		}), again: true},
		{name: "rapid reset of whole requests", clients: 4, do: requests(func(stream uint32) []byte {
			return append(whole(stream), frame(frameReset, 0, stream, make([]byte, 4))...)
		}), again: true},
		{name: "messages beyond the limit", clients: 4, do: requests(func(stream uint32) []byte {
			return append(headers(stream, "Encrypt"), message(stream, 1<<30, make([]byte, 8<<10), 0)...)
		}), again: true},
		{name: "half requests", clients: 16, do: requests(func(stream uint32) []byte {
			return append(headers(stream, "Encrypt"), message(stream, 60<<10, make([]byte, 15<<10), 0)...)
		}), again: true},
		{name: "half requests in small frames", clients: 4, do: requests(func(stream uint32) []byte {
			return slices.Concat(headers(stream, "Encrypt"), message(stream, 60<<10, nil, 0),
				slices.Repeat(frame(frameData, 0, stream, []byte("x")), 1000))
		}), again: true},
	}
}

func garbage(seed uint64) []byte {
	b := make([]byte, seed*997%20_000)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

// send ignores errors, because an attacker expects to be disconnected.
func send(conn net.Conn, parts ...[]byte) bool {
	_, err := conn.Write(slices.Concat(parts...))
	return err == nil
}

func flood(conn net.Conn, b []byte) {
	for send(conn, b) {
	}
}

// requests sends one request after another.
func requests(next func(stream uint32) []byte) func(net.Conn, uint64) {
	return func(conn net.Conn, _ uint64) {
		ok := send(conn, hello())
		for stream := uint32(1); ok; stream += 2 {
			ok = send(conn, next(stream))
		}
	}
}

// fillPipe blocks the server's writes by not reading from the connection.
func fillPipe(conn net.Conn) {
	for before, unchanged := -1, 0; unchanged < 3; unchanged++ {
		if !send(conn, slices.Repeat(frame(frameSettings, 0, 0, nil), 50)) {
			return
		}
		time.Sleep(5 * time.Millisecond)
		if now := unread(conn); now != before {
			before, unchanged = now, 0
		}
	}
}

// unread returns the number of bytes that can be read from conn.
func unread(conn net.Conn) (n int) {
	if raw, err := conn.(*net.UnixConn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return n
}

// playAttacker performs an attack on the socket at path until stdin ends.
func playAttacker(path, name string) error {
	i := slices.IndexFunc(attacks(), func(a attack) bool { return a.name == name })
	if i < 0 {
		return fmt.Errorf("no attack %q", name)
	}
	a := attacks()[i]
	if a.again {
		if err := yield(); err != nil {
			return err
		}
	}
	conns := make([]net.Conn, a.clients)
	dialed := make(chan error)
	const atOnce = 32
	for client := range conns {
		go func() {
			conn, err := dial(path)
			if err == nil {
				// Retry until it is accepted: a full backlog depends on the kernel.
				_, _ = conn.Read(make([]byte, 1))
			}
			conns[client] = conn
			dialed <- err
			for err == nil {
				a.do(conn, uint64(client))
				if !a.again {
					return
				}
				conn.Close()
				conn, err = dial(path)
			}
		}()
		if client >= atOnce {
			if err := <-dialed; err != nil {
				return err
			}
		}
	}
	for range min(atOnce, len(conns)) {
		if err := <-dialed; err != nil {
			return err
		}
	}
	fmt.Println("ok")
	_, err := io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(conns)
	return err
}

// yield lowers this process's CPU priority: how the kernel shares the CPU is not
// part of the test.
func yield() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, 19); err != nil {
			return err
		}
	}
	return nil
}

// dial retries until the backlog has room.
func dial(path string) (net.Conn, error) {
	for {
		conn, err := net.Dial("unix", path)
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		time.Sleep(time.Millisecond)
	}
}

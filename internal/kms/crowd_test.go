// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// The limits that these tests fill.
const (
	maxKnown     = 64
	maxStrangers = 512
)

// connect returns a connection once it is accepted.
func connect(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	send(conn, hello())
	if kind, _ := next(t, conn); kind != frameSettings {
		t.Fatalf("the server begins with a frame of type %d", kind)
	}
	return conn
}

// next reads a frame.
func next(t *testing.T, conn net.Conn) (kind byte, stream uint32) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 9)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatalf("waiting for a frame: %v", err)
	}
	size := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
	if _, err := io.CopyN(io.Discard, conn, size); err != nil {
		t.Fatalf("reading a frame: %v", err)
	}
	return head[3], binary.BigEndian.Uint32(head[5:])
}

// closed reports whether the server closes conn within d.
func closed(t *testing.T, conn net.Conn, d time.Duration) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, conn)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// Of too many connections the one goes that has sent no whole request for
// longest. Those that are known stay, however many others there are.
func TestTooManyConnections(t *testing.T) {
	asked := make(chan struct{})
	k := working()
	k.status = func() (string, error) {
		asked <- struct{}{}
		return keyID, nil
	}
	h := start(t, k, time.Minute)
	ask := func(conn net.Conn, stream uint32) {
		t.Helper()
		send(conn, whole(stream))
		select {
		case <-asked:
		case <-time.After(10 * time.Second):
			t.Fatal("a request does not arrive")
		}
	}

	var known, strangers []net.Conn
	for i := range maxKnown {
		known = append(known, connect(t, h.path))
		ask(known[i], 1)
	}
	for range maxStrangers {
		strangers = append(strangers, connect(t, h.path))
	}
	ask(strangers[1], 1)
	for range 2 {
		connect(t, h.path)
	}
	for i, want := range []bool{0: true, 1: false, 2: true, 3: false} {
		const moment = 50 * time.Millisecond
		if got := closed(t, strangers[i], map[bool]time.Duration{true: 10 * time.Second, false: moment}[want]); got != want {
			t.Errorf("stranger %d is closed: %t, want %t", i, got, want)
		}
	}
	for _, conn := range known {
		ask(conn, 3)
	}
}

// What a peer sends without reading is not kept for ever: ten thousand SETTINGS
// would fill hundreds of MiB.
func TestPeerThatDoesNotRead(t *testing.T) {
	conn := connect(t, start(t, working(), time.Second).path)
	fillPipe(conn)
	if err := conn.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// 256 KiB that the server reads, the socket's buffer, and what was not full
	// of it yet.
	const most = 8 << 20
	settings, sent := manySettings(), 0
	for {
		n, err := conn.Write(settings)
		sent += n
		switch {
		case sent > most:
			t.Fatalf("the server has taken %d bytes, want at most %d", sent, most)
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatalf("the connection is still open after %d bytes", sent)
		case err != nil:
			return
		}
	}
}

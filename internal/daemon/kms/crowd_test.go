// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
)

// The limits tested here.
const (
	maxKnown     = 64
	maxStrangers = 512
	maxStreams   = 1024
	crowded      = maxStreams + maxStreams/4
	knownShare   = 16
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

// With too many connections, the server closes the one whose last complete request
// is the oldest. Known callers keep theirs, regardless of the number of others.
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

// An incomplete request gets no more time than a complete one.
func TestHalfRequestEnds(t *testing.T) {
	h := start(t, working(), 50*time.Millisecond)
	conn := connect(t, h.path)
	send(conn, headers(1, "Encrypt"), message(1, 100, []byte("half"), 0))
	for {
		if kind, stream := next(t, conn); kind == frameHeaders && stream == 1 {
			return
		}
	}
}

// Under load, a caller with few requests is served, and one with many is refused.
func TestTooManyRequests(t *testing.T) {
	release := make(chan struct{})
	finish := sync.OnceFunc(func() { close(release) })
	defer finish()
	entered := make(chan struct{}, crowded+2*knownShare)
	k := working()
	k.encrypt = func(ctx context.Context, p []byte) ([]byte, string, error) {
		entered <- struct{}{}
		<-release
		return p, keyID, nil
	}
	h := start(t, k, time.Minute)
	request := &kmsapi.EncryptRequest{Plaintext: []byte("p")}
	var pending sync.WaitGroup
	fill := func(n int) kmsapi.KeyManagementServiceClient {
		client, closeConn, err := dialLikeKube(h.path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(closeConn)
		// Before that it is unknown and may have only one.
		if _, err := client.Status(t.Context(), &kmsapi.StatusRequest{}); err != nil {
			t.Fatal(err)
		}
		for range n {
			pending.Go(func() {
				if _, err := client.Encrypt(t.Context(), request); err != nil {
					t.Errorf("a request within the limits: %v", err)
				}
			})
		}
		for i := range n {
			select {
			case <-entered:
			case <-time.After(10 * time.Second):
				t.Fatalf("%d of %d requests are handled", i, n)
			}
		}
		return client
	}
	fill(maxStreams)
	fill(crowded - maxStreams)
	modest := fill(knownShare)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := modest.Encrypt(ctx, request)
	for status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil {
		_, err = modest.Encrypt(ctx, request) // on a busy machine the refusal may come too late
	}
	checkStatus(t, err, codes.ResourceExhausted, "too many concurrent requests")
	if _, err := h.Status(t.Context(), &kmsapi.StatusRequest{}); err != nil {
		t.Errorf("another caller's Status: %v", err)
	}
	finish()
	pending.Wait()
	if _, err := modest.Encrypt(t.Context(), request); err != nil {
		t.Errorf("once the others are done: %v", err)
	}
}

// Data for a peer that does not read is not buffered without limit: the answers to
// ten thousand SETTINGS would need hundreds of MiB.
func TestPeerThatDoesNotRead(t *testing.T) {
	conn := connect(t, start(t, working(), time.Minute).path)
	fillPipe(conn)
	if err := conn.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// 256 KiB that the server reads, the socket's buffer, and what was not full
	// of it yet.
	const most = 8 << 20
	settings, sent, answers := manySettings(), 0, 0
	for {
		n, err := conn.Write(settings)
		sent += n
		if now := unread(conn); now != answers {
			answers, sent = now, 0 // the pipe still had room
		}
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

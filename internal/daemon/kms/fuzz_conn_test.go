// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/daemon/kms"
)

// FuzzConnection sends arbitrary bytes, either at once or after a valid start of a
// connection. The server must close the connection and still serve another one.
func FuzzConnection(f *testing.F) {
	f.Add(false, []byte{})
	f.Add(false, []byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(false, hello()[:20])
	f.Add(false, append(hello(), whole(1)...))
	f.Add(true, whole(1))
	f.Add(true, append(whole(1), whole(1)...))
	f.Add(true, slices.Concat(headers(1, "Encrypt"), message(1, 60<<10, []byte("half"), 0)))
	f.Add(true, slices.Concat(headers(1, "Encrypt"), message(1, 1<<30, nil, endStream)))
	f.Add(true, slices.Concat(headers(1, "Nothing"), frame(frameReset, 0, 1, make([]byte, 4))))
	f.Add(true, slices.Concat(headers(1, "Decrypt"), frame(frameContinuation, endHeaders, 1, field("x", "y"))))
	f.Add(true, manySettings()[:100])
	f.Add(true, slices.Repeat(frame(framePing, 0, 0, make([]byte, 8)), 5))
	f.Add(true, frame(framePing, 0, 0, nil))
	f.Add(true, frame(frameData, endStream, 0, []byte("x")))

	path := filepath.Join(f.TempDir(), "kms.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		f.Fatal(err)
	}
	server := kms.New(kms.Options{KEK: working(), RequestTimeout: time.Minute})
	go func() { _ = server.Serve(l) }()
	f.Cleanup(func() { l.Close() })
	client, closeClient, err := dialLikeKube(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(closeClient)

	f.Fuzz(func(t *testing.T, greeted bool, raw []byte) {
		conn, err := dial(path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		// The server may have closed the connection before reading everything.
		if greeted {
			send(conn, hello())
		}
		send(conn, raw)
		_ = conn.(*net.UnixConn).CloseWrite()
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the server keeps a connection that the client has closed for writing")
		}
		if _, err := client.Status(t.Context(), &kmsapi.StatusRequest{}); err != nil {
			t.Errorf("on another connection: %v", err)
		}
	})
}

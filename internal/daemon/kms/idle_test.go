// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/daemon/kms"
)

// pipes is an in-memory listener, for tests with fake time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	dialed atomic.Int32
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

func (p *pipes) dial(context.Context, string) (net.Conn, error) {
	p.dialed.Add(1)
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours, nil
}

// A connection is closed after a long idle time, but that makes no request fail. At
// kube-apiserver's pace it stays open.
func TestIdle(t *testing.T) {
	for _, tt := range []struct {
		pause time.Duration
		conns int32 // expected for twelve requests; 0 for any number
	}{
		{time.Minute, 1},
		{10*time.Minute - time.Millisecond, 1},
		{10 * time.Minute, 0},
		{10*time.Minute + time.Millisecond, 0},
		{10*time.Minute + 5*time.Second, 0},
		{11 * time.Minute, 12},
	} {
		t.Run(tt.pause.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
				server := kms.New(kms.Options{KEK: working(), RequestTimeout: time.Second})
				go func() { _ = server.Serve(p) }()
				defer server.Shutdown(context.Background())
				conn, err := grpc.NewClient("passthrough:pipe", grpc.WithContextDialer(p.dial),
					grpc.WithTransportCredentials(insecure.NewCredentials()))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				client := kmsapi.NewKeyManagementServiceClient(conn)
				for range 12 {
					if _, err := client.Status(t.Context(), &kmsapi.StatusRequest{}); err != nil {
						t.Error(err)
					}
					time.Sleep(tt.pause)
				}
				if got := p.dialed.Load(); tt.conns > 0 && got != tt.conns {
					t.Errorf("%d connections, want %d", got, tt.conns)
				}
			})
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"container/list"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"
	"google.golang.org/grpc/peer"
)

// maxUnanswered is how many bytes a peer may send until something has been
// written to it. Flow control lets an honest one send 64 KiB of requests and the
// headers of maxStreams more.
const maxUnanswered = 256 << 10

// conn is a connection in a crowd.
type conn struct {
	net.Conn
	crowd      *crowd
	unanswered atomic.Int64

	// Guarded by crowd.mu.
	place *list.Element // among the strangers, if it is one
	known bool
	open  int // requests
}

// Read bounds the queue of what grpc has to write because of what it has read.
// grpc bounds their number, ten thousand, but one SETTINGS frame in it keeps
// 22 KiB, and a peer that does not read can make the queue as long as it likes.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.unanswered.Add(int64(n)) > maxUnanswered {
		c.drop("it sends without reading what it is sent")
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.unanswered.Store(0)
	return n, err
}

// drop closes the connection for a reason of ours.
func (c *conn) drop(because string) {
	c.crowd.log.Warn("closing a connection", zap.String("because", because))
	_ = c.Close()
}

func (c *conn) Close() error {
	c.crowd.leave(c)
	return c.Conn.Close()
}

// RemoteAddr lets a request find its connection: of that, grpc shows the
// address only.
func (c *conn) RemoteAddr() net.Addr { return address{c.Conn.RemoteAddr(), c} }

type address struct {
	net.Addr
	conn *conn
}

// connOf returns the connection that a request came on.
func connOf(ctx context.Context) (*conn, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, false
	}
	a, ok := p.Addr.(address)
	return a.conn, ok
}

// listener lets its connections into the crowd.
type listener struct {
	net.Listener
	crowd *crowd
}

// Accept never ends for want of a resource.
func (l *listener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, l.explain(err)
	}
	c := &conn{Conn: inner, crowd: l.crowd}
	l.crowd.enter(c)
	return c, nil
}

func (l *listener) explain(err error) error {
	for _, want := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, want) {
			l.crowd.log.Warn("a caller has to wait for a connection", zap.Error(err))
			return shortage{err}
		}
	}
	return err
}

// shortage is an error after which grpc calls Accept again, a second later at
// most. Of those of accept(2), net says so for open files but not for memory.
type shortage struct{ error }

func (shortage) Temporary() bool { return true }

// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"container/list"
	"errors"
	"net"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"
)

// maxUnanswered is how many bytes a peer may send before something is written to
// it. Flow control lets an honest one send 64 KiB of requests and the headers of
// maxStreams more.
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

// Read bounds the queue of responses that grpc keeps for what it has read. grpc
// bounds their number at ten thousand, but one SETTINGS frame in it keeps 22 KiB,
// and a peer that does not read can fill the queue.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.unanswered.Add(int64(n)) > maxUnanswered {
		c.drop("peer is not reading responses")
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.unanswered.Store(0)
	return n, err
}

// drop closes the connection and logs why.
func (c *conn) drop(reason string) {
	c.crowd.log.Warn("closing connection", zap.String("reason", reason))
	_ = c.Close()
}

func (c *conn) Close() error {
	c.crowd.mu.Lock()
	c.crowd.forget(c)
	c.crowd.mu.Unlock()
	return c.Conn.Close()
}

// RemoteAddr carries the connection, because a request's context has only its
// peer's address.
func (c *conn) RemoteAddr() net.Addr { return address{c.Conn.RemoteAddr(), c} }

type address struct {
	net.Addr
	conn *conn
}

// listener adds its connections to the crowd.
type listener struct {
	net.Listener
	crowd *crowd
}

// Accept never fails for good because a resource is exhausted.
func (l *listener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	for _, want := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, want) {
			l.crowd.log.Warn("cannot accept a connection yet", zap.Error(err))
			return nil, shortage{err}
		}
	}
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, crowd: l.crowd}
	l.crowd.enter(c)
	return c, nil
}

// shortage makes grpc call Accept again within a second. Of the errors of
// accept(2), package net calls a lack of files temporary but not one of memory.
type shortage struct{ error }

func (shortage) Temporary() bool { return true }

// SPDX-License-Identifier: Apache-2.0

// Package network stands for the network between a client and a server.
package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
)

// Proxy is a TCP proxy with a fixed address. It passes traffic until a fault is set.
// Its methods may be called concurrently.
type Proxy struct {
	// Addr is the listen address (host:port). It stays reserved until Close.
	Addr string

	port *loopback.Port

	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	targets  []string
	dropping bool
	delay    time.Duration
	changed  chan struct{} // closed and replaced when dropping or delay change
	pairs    map[*pair]struct{}
}

// pair is one connection through the proxy.
type pair struct {
	client    net.Conn
	forgotten atomic.Bool
	closed    chan struct{}
	once      sync.Once
}

// NewProxy starts a proxy to the first of the targets (host:port) that accepts a
// connection. The caller must Close it.
func NewProxy(targets ...string) (*Proxy, error) {
	port, err := loopback.Reserve("")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		Addr: port.Addr, port: port, targets: targets,
		changed: make(chan struct{}), pairs: make(map[*pair]struct{}),
	}
	if err := p.Pass(); err != nil {
		port.Release()
		return nil, err
	}
	return p, nil
}

// Close is Refuse for good. Call it once.
func (p *Proxy) Close() {
	p.Refuse()
	p.port.Release()
}

// Connections returns how many connections the clients at an IP address have open.
func (p *Proxy) Connections(client string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for c := range p.pairs {
		if c.client.RemoteAddr().(*net.TCPAddr).IP.String() == client {
			n++
		}
	}
	return n
}

// SetTargets changes the targets of new connections.
func (p *Proxy) SetTargets(targets ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.targets = targets
}

// Pass removes every fault. It delivers data held back by Drop or Delay, as TCP does
// when a network recovers.
func (p *Proxy) Pass() error {
	p.become(false, 0)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", p.Addr)
	if err != nil {
		return fmt.Errorf("the proxy cannot listen on its address: %w", err)
	}
	p.listener = l
	go p.accept(l)
	return nil
}

// Refuse resets all connections and refuses new ones, like a host whose server has
// stopped.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	p.mu.Unlock()
	p.Cut()
}

// Drop silently discards traffic in both directions. New connections are accepted,
// because a proxy cannot drop what the kernel answers, but no data comes back on
// them, not even a TLS handshake.
func (p *Proxy) Drop() { p.become(true, 0) }

// Delay holds back everything that Vault sends by d.
func (p *Proxy) Delay(d time.Duration) { p.become(false, d) }

// Forget makes all connections silently dead, as if a firewall on the way had lost its
// state: nothing is passed on any more, and neither end learns of it. New connections
// are not affected.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.forgotten.Store(true)
	}
}

// Cut closes all connections at once. New ones are not affected.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.close()
	}
}

func (p *Proxy) become(dropping bool, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropping, p.delay = dropping, delay
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go p.carry(conn)
	}
}

// carry connects a client to a target and copies until one of them closes.
func (p *Proxy) carry(client net.Conn) {
	c := &pair{client: client, closed: make(chan struct{})}
	p.mu.Lock()
	p.pairs[c] = struct{}{}
	p.mu.Unlock()
	defer func() {
		c.close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.pairs, c)
	}()
	// A connection accepted during Drop goes nowhere until Drop ends.
	if !p.hold(c, time.Now(), false) {
		return
	}
	server, err := p.dial()
	if err != nil {
		return
	}
	var copying sync.WaitGroup
	copying.Go(func() { p.copy(c, server, client, false) })
	copying.Go(func() { p.copy(c, client, server, true) })
	<-c.closed
	_ = server.Close()
	copying.Wait()
}

func (c *pair) close() {
	c.once.Do(func() {
		_ = c.client.Close()
		close(c.closed)
	})
}

func (p *Proxy) dial() (net.Conn, error) {
	p.mu.Lock()
	targets := p.targets
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	for _, target := range targets {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", target)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// copy copies one direction; answers marks data sent by the server.
func (p *Proxy) copy(c *pair, to, from net.Conn, answers bool) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && p.hold(c, time.Now(), answers) && !c.forgotten.Load() {
			if _, writeErr := to.Write(buffer[:n]); writeErr != nil {
				err = writeErr
			}
		}
		switch {
		case err == nil:
			continue
		case answers && c.forgotten.Load():
			return
		case answers && errors.Is(err, syscall.ECONNRESET):
			// Close sends a reset after this.
			_ = c.client.(*net.TCPConn).SetLinger(0)
		}
		c.close()
		return
	}
}

// hold waits until data received at a given time may be forwarded. It returns false
// if its connection is closed.
func (p *Proxy) hold(c *pair, came time.Time, answer bool) bool {
	for {
		p.mu.Lock()
		dropping, delay, changed := p.dropping, p.delay, p.changed
		p.mu.Unlock()
		left := time.Duration(0)
		if answer {
			left = delay - time.Since(came)
		}
		if !dropping && left <= 0 {
			return true
		}
		var due <-chan time.Time
		if !dropping {
			due = time.After(left)
		}
		select {
		case <-due:
		case <-changed:
		case <-c.closed:
			return false
		}
	}
}

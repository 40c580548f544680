// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
)

// The operations. Counts, Fault.Match and Intercept use these names.
const (
	OpEncrypt         = "encrypt"
	OpDecrypt         = "decrypt"
	OpReadKey         = "read-key"
	OpCreateKey       = "create-key"
	OpRotateKey       = "rotate-key"
	OpConfigKey       = "config-key"
	OpTrimKey         = "trim-key"
	OpDeleteKey       = "delete-key"
	OpLogin           = "login"
	OpLookupSelf      = "lookup-self"
	OpLookup          = "lookup"
	OpLookupAccessor  = "lookup-accessor"
	OpRenewSelf       = "renew-self"
	OpRevokeSelf      = "revoke-self"
	OpRevokeAccessor  = "revoke-accessor"
	OpCreateToken     = "create-token"
	OpCapabilities    = "capabilities-self"
	OpWrappingLookup  = "wrapping-lookup"
	OpHealth          = "health"
	OpSealStatus      = "seal-status"
	OpKVRead          = "kv-read"
	OpKVWrite         = "kv-write"
	OpListMounts      = "list-mounts"
	OpShowMount       = "show-mount"
	OpMount           = "mount"
	OpListAuth        = "list-auth"
	OpEnableAuth      = "enable-auth"
	OpReadPolicy      = "read-policy"
	OpWritePolicy     = "write-policy"
	OpReadAuthConfig  = "read-auth-config"
	OpWriteAuthConfig = "write-auth-config"
	OpReadRole        = "read-role"
	OpWriteRole       = "write-role"
	OpOther           = "other"
)

// counters counts the requests received by one node. The zero value is ready for use.
type counters struct {
	countMu  sync.Mutex
	byOp     map[string]int
	total    int
	inFlight int
	open     map[net.Conn]struct{}
	opened   int
	changed  chan struct{} // non-nil while a caller waits; closed at the next change
}

// Count returns the number of received requests with this operation, answered or not, since the last ResetCounts.
func (c *counters) Count(op string) int {
	c.countMu.Lock()
	defer c.countMu.Unlock()
	return c.byOp[op]
}

// Total returns the number of all received requests since the last ResetCounts.
func (c *counters) Total() int {
	c.countMu.Lock()
	defer c.countMu.Unlock()
	return c.total
}

// InFlight returns the number of received requests that have not been answered yet.
func (c *counters) InFlight() int {
	c.countMu.Lock()
	defer c.countMu.Unlock()
	return c.inFlight
}

// Connections returns the number of open client connections.
func (c *counters) Connections() int {
	c.countMu.Lock()
	defer c.countMu.Unlock()
	return len(c.open)
}

// ConnectionsOpened returns the number of connections accepted since the last ResetCounts.
func (c *counters) ConnectionsOpened() int {
	c.countMu.Lock()
	defer c.countMu.Unlock()
	return c.opened
}

// LoseConnections makes every packet that arrives on the connections open now vanish, as a firewall or NAT does that
// has lost its state. Nothing is acknowledged or reset, so the clients notice nothing. New connections work.
func (c *counters) LoseConnections() {
	c.countMu.Lock()
	defer c.countMu.Unlock()
	for conn := range c.open {
		if err := loopback.DropPackets(belowTLS(conn).(*net.TCPConn)); err != nil && !errors.Is(err, net.ErrClosed) {
			panic(err)
		}
	}
}

// ResetCounts sets Count, Total and ConnectionsOpened back to zero.
func (c *counters) ResetCounts() {
	c.countMu.Lock()
	defer c.countMu.Unlock()
	c.byOp, c.total, c.opened = nil, 0, 0
	c.notify()
}

// WaitInFlight waits until at least n requests are in flight.
func (c *counters) WaitInFlight(ctx context.Context, n int) error {
	return c.wait(ctx, fmt.Sprintf("%d requests in flight", n), func() bool { return c.inFlight >= n })
}

// WaitIdle waits until no request is in flight.
func (c *counters) WaitIdle(ctx context.Context) error {
	return c.wait(ctx, "no request in flight", func() bool { return c.inFlight == 0 })
}

// WaitCount waits until Count(op) is at least n.
func (c *counters) WaitCount(ctx context.Context, op string, n int) error {
	return c.wait(ctx, fmt.Sprintf("%d %s requests", n, op), func() bool { return c.byOp[op] >= n })
}

// WaitConnections waits until exactly n connections are open. The server sees a closed connection with a delay.
func (c *counters) WaitConnections(ctx context.Context, n int) error {
	return c.wait(ctx, fmt.Sprintf("%d open connections", n), func() bool { return len(c.open) == n })
}

func (c *counters) wait(ctx context.Context, what string, met func() bool) error {
	for {
		c.countMu.Lock()
		if met() {
			c.countMu.Unlock()
			return nil
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.countMu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		}
	}
}

// notify wakes the waiters. The caller holds c.countMu.
func (c *counters) notify() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// arrived counts a request as in flight; the returned function ends that.
func (c *counters) arrived(op string) (done func()) {
	c.countMu.Lock()
	defer c.countMu.Unlock()
	if c.byOp == nil {
		c.byOp = map[string]int{}
	}
	c.byOp[op]++
	c.total++
	c.inFlight++
	c.notify()
	return func() {
		c.countMu.Lock()
		defer c.countMu.Unlock()
		c.inFlight--
		c.notify()
	}
}

func (c *counters) connState(conn net.Conn, state http.ConnState) {
	c.countMu.Lock()
	defer c.countMu.Unlock()
	switch state {
	case http.StateNew:
		if c.open == nil {
			c.open = map[net.Conn]struct{}{}
		}
		c.open[conn] = struct{}{}
		c.opened++
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
	default:
		return
	}
	c.notify()
}

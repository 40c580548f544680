// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxAddresses is how many of a name's addresses are tried: more than a Vault
	// cluster usually has nodes. It bounds the sockets of one dial.
	maxAddresses = 8
	// stagger is the longest time that an address has before the next one is tried
	// too (RFC 8305, section 8).
	stagger = 250 * time.Millisecond
	// keepAliveIdle is shorter than the half minute after which some NATs forget an
	// idle connection.
	keepAliveIdle = 10 * time.Second
	// userTimeout is how long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT).
	// The kernel of an overloaded Vault still acknowledges; a dead path does not. In
	// three seconds Linux sends the bytes four times (on a short path again after 0.2,
	// 0.6 and 1.4 s), so a few lost packets do not matter. A call that then connects
	// again still succeeds within five seconds.
	userTimeout = 3 * time.Second
)

// lookup returns a host's addresses, the best first: [net.Resolver.LookupNetIP].
type lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// connect returns the first connection to any of a host's addresses ("happy
// eyeballs"). net.Dialer tries those of one family in turn, so one that drops
// packets uses up the time of the others. All errors are *net.OpErrors, as
// net.Dialer's are.
func connect(ctx context.Context, lookup lookup, network, address string) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	addrs, err := lookup(ctx, "ip", host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	addrs = interleave(addrs)
	addrs = addrs[:min(len(addrs), maxAddresses)]

	type result struct {
		conn *net.TCPConn
		err  error
	}
	results, returned := make(chan result), make(chan struct{})
	defer close(returned)
	dial := func(addr netip.Addr) {
		conn, err := connectTo(ctx, network, net.JoinHostPort(addr.String(), port))
		select {
		case results <- result{conn, err}:
		case <-returned:
			if err == nil {
				_ = conn.Close()
			}
		}
	}
	// At least half of the time is left for the last address.
	lead := min(stagger, dialTimeout/2/time.Duration(max(len(addrs), 1)))
	next := time.NewTimer(0)
	defer next.Stop()
	var failed []error
	for started := 0; len(failed) < len(addrs); {
		select {
		case <-next.C:
			go dial(addrs[started])
			if started++; started < len(addrs) {
				next.Reset(lead)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			failed = append(failed, r.err)
			if started < len(addrs) {
				next.Reset(0)
			}
		}
	}
	return nil, allFailed(network, failed)
}

// Connect opens a connection to a host and port as a [Client] does: to any of the
// host's addresses, within the same time, and through no proxy.
func Connect(ctx context.Context, address string) (*net.TCPConn, error) {
	return connect(ctx, net.DefaultResolver.LookupNetIP, "tcp", address)
}

// Handshake is Connect, and then a TLS handshake as a [Client] that is dialed with
// cfg makes it, but for as long as ctx allows. The name is the one that the certificate
// must have. The caller closes the connection.
func (cfg Config) Handshake(ctx context.Context, address string) (conn *tls.Conn, name string, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, "", err
	}
	config, err := cfg.tls()
	if err != nil {
		return nil, "", err
	}
	config.ServerName = cmp.Or(config.ServerName, host)
	raw, err := Connect(ctx, address)
	if err != nil {
		return nil, config.ServerName, err
	}
	conn = tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, config.ServerName, err
	}
	return conn, config.ServerName, nil
}

func connectTo(ctx context.Context, network, address string) (*net.TCPConn, error) {
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable:   true,
		Idle:     keepAliveIdle,
		Interval: userTimeout,
		Count:    1, // with TCP_USER_TIMEOUT, Linux ignores it and acts as for 1
	}}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tcp := conn.(*net.TCPConn) // network is "tcp"
	if raw, err := tcp.SyscallConn(); err == nil {
		// Without the option, the connection still works.
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
		})
	}
	return tcp, nil
}

// interleave alternates between IPv4 and IPv6 and otherwise keeps the resolver's
// order (RFC 8305, section 4).
func interleave(addrs []netip.Addr) []netip.Addr {
	rank, seen := map[netip.Addr]int{}, map[bool]int{}
	for i, addr := range addrs {
		addrs[i] = addr.Unmap()
		rank[addrs[i]] = seen[addrs[i].Is4()]
		seen[addrs[i].Is4()]++
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(rank[a], rank[b]) })
	return addrs
}

// allFailed is the error for a host with no address that accepts a connection.
func allFailed(network string, failed []error) error {
	if len(failed) == 1 {
		return failed[0]
	}
	var reasons []string
	for _, err := range failed[:min(len(failed), 3)] {
		reasons = append(reasons, strings.TrimPrefix(err.Error(), "dial "+network+" "))
	}
	if more := len(failed) - len(reasons); more > 0 {
		reasons = append(reasons, fmt.Sprintf("and %d more", more))
	}
	return &net.OpError{Op: "dial", Net: network, Err: errors.New(strings.Join(reasons, "; "))}
}

// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

type lookup = func(context.Context, string, string) ([]netip.Addr, error)

// resolvesTo is a resolver that knows the addresses of every name.
func resolvesTo(addrs ...string) lookup {
	return func(context.Context, string, string) ([]netip.Addr, error) {
		var found []netip.Addr
		for _, addr := range addrs {
			found = append(found, netip.MustParseAddr(addr))
		}
		return found, nil
	}
}

// blackHole reserves the port at an address of the loopback network that drops every packet.
func blackHole(t *testing.T, addr, port string) string {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), "tcp", net.JoinHostPort(addr, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := loopback.DropPackets(l.(syscall.Conn)); err != nil {
		t.Fatal(err)
	}
	return addr
}

// A name works if one of its addresses does, whatever is wrong with those before it.
func TestOneAddressAnswers(t *testing.T) {
	live := listen(t, func(net.Conn) {})
	_, port, _ := net.SplitHostPort(live)
	var dropping, refusing []string
	for i := range 7 {
		dropping = append(dropping, blackHole(t, fmt.Sprintf("127.0.1.%d", i+1), port))
		refusing = append(refusing, fmt.Sprintf("127.0.2.%d", i+1))
	}
	for name, test := range map[string]struct {
		before []string
		within time.Duration
	}{
		"alone":         {nil, time.Second},
		"refused":       {refusing, 1500 * time.Millisecond}, // does not wait for each
		"dropped":       {dropping[:1], 5 * time.Second},
		"seven dropped": {dropping, 5 * time.Second},
		"mixed":         {slices.Concat(refusing[:3], dropping[:3]), 5 * time.Second},
		"other family":  {[]string{"2001:db8::1", "2001:db8::2"}, 5 * time.Second}, // for documentation: no route, or none there
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			conn, err := vault.ConnectBy(bounded(t), resolvesTo(append(slices.Clone(test.before), "127.0.0.1")...), "tcp", "vault.example:"+port)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := conn.RemoteAddr().String(); got != live {
				t.Errorf("connected to %s, want %s", got, live)
			}
			if took := time.Since(start); took > test.within {
				t.Errorf("took %v, want %v at most", took, test.within)
			}
		})
	}
}

// withoutIPv6 replaces the errors of a host without it.
var withoutIPv6 = strings.NewReplacer(
	"connect: cannot assign requested address", "connect: connection refused",
	"socket: address family not supported by protocol", "connect: connection refused",
)

// The resolver's order is kept, except that the families alternate: the first address decides which is first.
func TestNoAddressAnswers(t *testing.T) {
	nobody, err := loopback.Reserve("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nobody.Release)
	_, port, _ := net.SplitHostPort(nobody.Addr)
	hole := blackHole(t, "127.0.1.1", port)
	many := make([]string, 20)
	for i := range many {
		many[i] = "127.0.0." + strconv.Itoa(i+1)
	}
	for name, test := range map[string]struct {
		lookup lookup
		want   string
	}{
		"one refused": {resolvesTo("127.0.0.1"), "dial tcp 127.0.0.1:PORT: connect: connection refused"},
		"one dropped": {resolvesTo(hole), "dial tcp 127.0.1.1:PORT: i/o timeout"},
		"two": {resolvesTo(hole, "127.0.0.1"),
			"dial tcp: 127.0.0.1:PORT: connect: connection refused; 127.0.1.1:PORT: i/o timeout"},
		"many": {resolvesTo(many...),
			"dial tcp: 127.0.0.1:PORT: connect: connection refused; 127.0.0.2:PORT: connect: connection refused; " +
				"127.0.0.3:PORT: connect: connection refused; and 5 more"},
		// net.Resolver maps IPv4 addresses to IPv6.
		"IPv4 first": {resolvesTo("::ffff:127.0.0.2", "::ffff:127.0.0.1", "::1"),
			"dial tcp: 127.0.0.2:PORT: connect: connection refused; [::1]:PORT: connect: connection refused; " +
				"127.0.0.1:PORT: connect: connection refused"},
		"IPv6 first": {resolvesTo("::1", "127.0.0.2", "127.0.0.1"),
			"dial tcp: [::1]:PORT: connect: connection refused; 127.0.0.2:PORT: connect: connection refused; " +
				"127.0.0.1:PORT: connect: connection refused"},
		"no such host": {
			func(_ context.Context, _, host string) ([]netip.Addr, error) {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			},
			"dial tcp: lookup vault.example: no such host",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(bounded(t), time.Second)
			defer cancel()
			conn, err := vault.ConnectBy(ctx, test.lookup, "tcp", "vault.example:"+port)
			if err == nil {
				_ = conn.Close()
				t.Fatal("connected")
			}
			if op := (*net.OpError)(nil); !errors.As(err, &op) {
				t.Errorf("got a %T, want a *net.OpError", err)
			}
			got := withoutIPv6.Replace(err.Error())
			if want := strings.ReplaceAll(test.want, "PORT", port); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// A call's error says which of a name's addresses did not work.
func TestErrorNamesTheAddress(t *testing.T) {
	s := vaulttest.Start(t)
	c := dial(t, s, func(cfg *vault.Config) {
		cfg.Addresses = []string{"http://vault.example:1"}
		cfg.Transport = &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return vault.ConnectBy(ctx, resolvesTo("127.0.0.1", "127.0.0.2"), network, address)
		}}
	})
	wantError(t, c, encrypt(bounded(t), c), fault.Unavailable, "encrypting with transit/kek at ADDRESS: "+
		"dial tcp: 127.0.0.1:1: connect: connection refused; 127.0.0.2:1: connect: connection refused")
}

// The real resolver, with the name that every host knows.
func TestName(t *testing.T) {
	for _, options := range []vaulttest.Options{{}, {TLS: true}} {
		s := vaulttest.Start(t, options)
		s.CreateKey("kek")
		c := dial(t, s, func(cfg *vault.Config) {
			cfg.Addresses[0] = strings.Replace(cfg.Addresses[0], "127.0.0.1", "localhost", 1)
		})
		if err := encrypt(bounded(t), c); err != nil {
			t.Errorf("TLS %v: %v", options.TLS, err)
		}
	}
}

func TestSocketOptions(t *testing.T) {
	conn, err := vault.ConnectBy(bounded(t), resolvesTo("127.0.0.1"), "tcp", listen(t, func(net.Conn) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ level, option, want int }{
		"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 3000}, // milliseconds
		"SO_KEEPALIVE":     {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":     {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 10}, // seconds
		"TCP_KEEPINTVL":    {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 3},
		"TCP_KEEPCNT":      {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 1},
	} {
		var got int
		var failure error
		err := raw.Control(func(fd uintptr) { got, failure = unix.GetsockoptInt(int(fd), test.level, test.option) })
		if err != nil || failure != nil || got != test.want {
			t.Errorf("%s: got %d, want %d; %v, %v", name, got, test.want, err, failure)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package fleet reads the status of many nodes from the ops endpoints /readyz and
// /metrics of each Trousseau, and compares the nodes.
package fleet

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// DefaultPort is the port of the daemon's default --ops-addr.
const DefaultPort = "8095"

// DefaultAddr is the daemon's default --ops-addr.
const DefaultAddr = "127.0.0.1:" + DefaultPort

// Node is one Trousseau, identified by the address of its ops endpoints or by the name
// of its node in the cluster. Its methods are safe for concurrent use.
type Node struct {
	name   string
	base   string
	client *http.Client
}

// ParseNode reads an address: a host, host:port, or an http or https URL without a
// path. The default port is DefaultPort, and in a URL that of the scheme.
//
// Requests go directly to the node: it ignores proxies from the environment and
// follows no redirects.
func ParseNode(addr string) (Node, error) {
	refused := func() (Node, error) {
		return Node{}, fmt.Errorf("address %q: want host:port or http://host:port, such as %s", addr, DefaultAddr)
	}
	base := addr
	if !strings.Contains(addr, "://") {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			host, port = strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]"), DefaultPort
		}
		if host == "" || port == "" || strings.ContainsAny(host, "/@?#[] \t") {
			return refused()
		}
		base = "http://" + net.JoinHostPort(host, port)
	}
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return refused()
	}
	return newNode(addr, u.Scheme+"://"+u.Host, nil), nil
}

// NewNode returns a node with a name, which dial connects to. The texts of dial's
// errors, and of the errors of its connections, should be [Unreachable].
func NewNode(name string, dial func(context.Context) (net.Conn, error)) Node {
	return newNode(name, "http://localhost", func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) })
}

func newNode(name, base string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) Node {
	return Node{
		name: name,
		base: base,
		client: &http.Client{
			Transport:     &http.Transport{DisableKeepAlives: true, DialContext: dial},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Unreachable is an error that says why a node does not answer, and what to check.
type Unreachable string

func (u Unreachable) Error() string { return string(u) }

// String returns the address that ParseNode was given, or the name.
func (n Node) String() string { return n.name }

// ParseNodes makes a node of each address, and drops duplicates.
func ParseNodes(addrs []string) ([]Node, error) {
	var nodes []Node
	seen := map[string]bool{}
	for _, addr := range addrs {
		n, err := ParseNode(addr)
		if err != nil {
			return nil, err
		}
		if !seen[n.base] {
			seen[n.base] = true
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// ReadNodes reads addresses, one per line. It ignores blank lines and comments,
// which start with a # at the beginning of a line or after a blank.
func ReadNodes(r io.Reader) ([]Node, error) {
	var addrs []string
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(" "+lines.Text(), " #")
		switch fields := strings.Fields(text); len(fields) {
		case 0:
		case 1:
			if _, err := ParseNode(fields[0]); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			addrs = append(addrs, fields[0])
		default:
			return nil, fmt.Errorf("line %d: want one address per line", n)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return ParseNodes(addrs)
}

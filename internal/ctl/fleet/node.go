// SPDX-License-Identifier: Apache-2.0

// Package fleet asks the nodes that Trousseau runs on how they are, by their
// operator's pages /readyz and /metrics, and compares what they say.
package fleet

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// DefaultPort is where the daemon's pages are unless --ops-addr says otherwise.
const DefaultPort = "8095"

// DefaultAddr is the daemon's own default of --ops-addr.
const DefaultAddr = "127.0.0.1:" + DefaultPort

// Node is one Trousseau, known by the address of its pages. Its methods are safe
// for concurrent use.
type Node struct {
	name   string
	base   string
	client *http.Client
}

// ParseNode reads an address: a host, host:port or a URL without a path, http or
// https. Without a port it is DefaultPort, in a URL that of the scheme.
//
// The node is asked directly: proxies from the environment are not used, and
// redirects not followed.
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
	return Node{
		name: addr,
		base: u.Scheme + "://" + u.Host,
		client: &http.Client{
			Transport:     &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// String returns the address as it was given.
func (n Node) String() string { return n.name }

// ParseNodes makes a node of each address. One that is given again is left out.
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

// ReadNodes reads addresses, one on each line. Blank lines, and what follows a
// # at the beginning or after a blank, are left out.
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
			return nil, fmt.Errorf("line %d: want one address on each line", n)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return ParseNodes(addrs)
}

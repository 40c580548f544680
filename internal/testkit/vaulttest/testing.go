// SPDX-License-Identifier: Apache-2.0

package vaulttest

import "testing"

// Start is New for a test: it fails the test on error and closes the server when the test is over.
// At most one Options may be given.
func Start(t testing.TB, options ...Options) *Server {
	t.Helper()
	if len(options) > 1 {
		t.Fatal("vaulttest.Start takes at most one Options")
	}
	var o Options
	if len(options) == 1 {
		o = options[0]
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// StartProxy is NewProxy for a test: it fails the test on error and closes the proxy when the test is over.
func StartProxy(t testing.TB, upstream *Server, options ProxyOptions) *Proxy {
	t.Helper()
	p, err := NewProxy(upstream, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// SPDX-License-Identifier: Apache-2.0

package testbed

import "github.com/trousseau-io/trousseau/test/harness/network"

// Proxy stands for the network in front of Vault. Its faults end with the test.
type Proxy struct {
	*network.Proxy

	bed *Bed
}

// StartProxy starts a proxy to the first of the targets (host:port) that accepts a
// connection.
func (b *Bed) StartProxy(targets ...string) *Proxy {
	b.t.Helper()
	p, err := network.NewProxy(targets...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(p.Close)
	return &Proxy{Proxy: p, bed: b}
}

// Pass removes every fault.
func (p *Proxy) Pass() {
	p.bed.t.Helper()
	if err := p.Proxy.Pass(); err != nil {
		p.bed.t.Error(err)
	}
}

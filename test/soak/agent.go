// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/trousseau-io/trousseau/test/apiserver/plugin"
)

// The files that trousseau reads.
const (
	configName = "config.yaml"
	caFile     = "ca.pem"
	certFile   = "client.pem"
	keyFile    = "client-key.pem"
)

// agent renders files as Vault Agent does, and like it tries again what could
// not be written. Its methods may be called concurrently.
type agent struct {
	dir     string
	address string // of Vault

	mu      sync.Mutex
	inUse   string            // the token
	content map[string]string // of the files as they should be
	unsaved map[string]bool   // could not be written yet
}

func newAgent(dir, address string) *agent {
	return &agent{dir: dir, address: address, content: map[string]string{}, unsaved: map[string]bool{}}
}

func (a *agent) path(name string) string { return filepath.Join(a.dir, name) }

func (a *agent) token() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inUse
}

// should is what a file should contain.
func (a *agent) should(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.content[name]
}

// put writes a file, now or as soon as that is possible.
func (a *agent) put(name, content string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.content[name] = content
	a.write(name)
}

// restore writes a file anew as it should be.
func (a *agent) restore(name string) { a.put(name, a.should(name)) }

// renderToken writes config.yaml with this token.
func (a *agent) renderToken(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inUse = token
	a.content[configName] = a.config()
	a.write(configName)
}

// config is config.yaml as the README's template renders it, with what TLS
// takes. The caller holds a.mu.
func (a *agent) config() string {
	var b strings.Builder
	b.WriteString(plugin.Template{KeyNames: []string{keyName}, Address: a.address, Token: a.inUse}.String())
	for _, f := range []struct{ field, name string }{{"vaultCACert", caFile}, {"clientCert", certFile}, {"clientKey", keyFile}} {
		fmt.Fprintf(&b, "  %s: %s \n", f.field, a.path(f.name))
	}
	return b.String()
}

// write has the file replaced. The caller holds a.mu.
func (a *agent) write(name string) {
	delete(a.unsaved, name)
	if plugin.Render(a.path(name), a.content[name]) != nil {
		a.unsaved[name] = true
	}
}

// run tries again what could not be written, until ctx is done.
func (a *agent) run(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.mu.Lock()
		for name := range maps.Clone(a.unsaved) {
			a.write(name)
		}
		a.mu.Unlock()
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/agent"
)

// The files read by trousseau.
const (
	configName = "config.yaml"
	caFile     = "ca.pem"
	certFile   = "client.pem"
	keyFile    = "client-key.pem"
)

// renderer renders files as Vault Agent does, and retries failed writes as it does.
// Its methods may be called concurrently.
type renderer struct {
	dir     string
	address string // of Vault

	mu      sync.Mutex
	inUse   string            // the token
	second  string            // further address of Vault; "" for none
	content map[string]string // desired content by file
	unsaved map[string]bool   // files not written yet
}

func newRenderer(dir, address string) *renderer {
	return &renderer{dir: dir, address: address, content: map[string]string{}, unsaved: map[string]bool{}}
}

func (r *renderer) path(name string) string { return filepath.Join(r.dir, name) }

func (r *renderer) token() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inUse
}

// should returns the desired content of a file.
func (r *renderer) should(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.content[name]
}

// put writes a file, now or as soon as possible.
func (r *renderer) put(name, content string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.content[name] = content
	r.write(name)
}

// restore writes the desired content of a file again.
func (r *renderer) restore(name string) { r.put(name, r.should(name)) }

// renderToken renders config.yaml with this token.
func (r *renderer) renderToken(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inUse = token
	r.content[configName] = r.config()
	r.write(configName)
}

// renderSecond renders config.yaml with a further address of Vault; "" for none.
func (r *renderer) renderSecond(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.second = address
	r.content[configName] = r.config()
	r.write(configName)
}

// onDisk returns how the files say to use Vault. intact is false if one of them is
// not as it should be; the result is then of no use.
func (r *renderer) onDisk() (says access, intact bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, content := range r.content {
		if now, err := os.ReadFile(r.path(name)); err != nil || string(now) != content {
			return access{}, false
		}
	}
	return access{
		addresses: [2]string{r.address, r.second}, token: r.inUse,
		ca: r.content[caFile], cert: r.content[certFile], key: r.content[keyFile],
	}, true
}

// config returns config.yaml as rendered from the documented template, plus the fields
// for TLS. The caller holds r.mu.
func (r *renderer) config() string {
	var b strings.Builder
	b.WriteString(agent.Template{KeyNames: []string{keyName}, Address: r.address, Token: r.inUse}.String())
	for _, f := range []struct{ field, name string }{{"vaultCACert", caFile}, {"clientCert", certFile}, {"clientKey", keyFile}} {
		fmt.Fprintf(&b, "  %s: %s \n", f.field, r.path(f.name))
	}
	if r.second != "" {
		fmt.Fprintf(&b, "  addresses:\n  - %s \n", r.second)
	}
	return b.String()
}

// write replaces the file. The caller holds r.mu.
func (r *renderer) write(name string) {
	delete(r.unsaved, name)
	if agent.Render(r.path(name), r.content[name]) != nil {
		r.unsaved[name] = true
	}
}

// run retries failed writes until ctx is done.
func (r *renderer) run(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		for name := range maps.Clone(r.unsaved) {
			r.write(name)
		}
		r.mu.Unlock()
	}
}

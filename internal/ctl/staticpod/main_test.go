// SPDX-License-Identifier: Apache-2.0

package staticpod_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/staticpod"
)

// node is a control-plane node's files.
type node struct {
	t   *testing.T
	dir string
}

func newNode(t *testing.T) node {
	t.Helper()
	// A socket's path must be short.
	dir, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := node{t, dir}
	for _, name := range []string{"etc/manifests", "run", "secret"} {
		n.mkdir(name)
	}
	return n
}

func (n node) path(name string) string { return filepath.Join(n.dir, name) }

func (n node) mkdir(name string) {
	n.t.Helper()
	if err := os.MkdirAll(n.path(name), 0o700); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) write(name, content string) {
	n.t.Helper()
	if err := os.WriteFile(n.path(name), []byte(content), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) remove(name string) {
	n.t.Helper()
	if err := os.RemoveAll(n.path(name)); err != nil {
		n.t.Fatal(err)
	}
}

// list returns the names in a directory.
func (n node) list(dir string) string {
	n.t.Helper()
	entries, err := os.ReadDir(n.path(dir))
	if err != nil {
		n.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func (n node) content(name string) string {
	text, err := os.ReadFile(n.path(name))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// render returns a manifest as the chart does.
func (n node) render(app, namespace, image string) staticpod.Manifest {
	n.t.Helper()
	return n.seal(fmt.Sprintf(`# For kubelet.
apiVersion: v1
kind: Pod
metadata:
  name: %s-%s
  namespace: %s
  annotations:
    trousseau.io/revision: "%[2]s"
spec:
  containers:
  - name: trousseau
    image: %[4]s
    args: ["--takeover", "--health-addr=unix://%[5]s/health-%[2]s.sock"]`, app, placeholder, namespace, image, n.path("run")))
}

// placeholder is where the chart puts the revision.
const placeholder = "REVISION-OF-THIS-MANIFEST"

// seal puts the revision into a text.
func (n node) seal(text string) staticpod.Manifest {
	n.t.Helper()
	sum := sha256.Sum256([]byte(text))
	text = strings.ReplaceAll(text, placeholder, hex.EncodeToString(sum[:])[:10]) + "\n"
	m, err := staticpod.Parse([]byte(text))
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

// revision returns a manifest that differs from others by its image.
func (n node) revision(image string) staticpod.Manifest {
	return n.render("trousseau", "kube-system", image)
}

func (n node) options(m staticpod.Manifest) staticpod.Options {
	return staticpod.Options{Manifest: m, Directory: n.path("etc/manifests")}
}

func (n node) keeper(o staticpod.Options) *staticpod.Keeper {
	n.t.Helper()
	k, err := staticpod.New(o)
	if err != nil {
		n.t.Fatal(err)
	}
	return k
}

// mustSettle makes a pass that must have nothing left to wait for.
func (n node) mustSettle(o staticpod.Options) {
	n.t.Helper()
	if err := n.keeper(o).Pass(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

// mustWait makes a pass that must wait, for a reason that contains want.
func (n node) mustWait(o staticpod.Options, want string) {
	n.t.Helper()
	if err := n.keeper(o).Pass(n.t.Context()); err == nil || !strings.Contains(err.Error(), want) {
		n.t.Errorf("the pass returns %v, want %q", err, want)
	}
}

// process is a revision's Trousseau, which has or has not proven the key.
type process struct {
	proven atomic.Bool
	stop   func()
}

func (n node) start(m staticpod.Manifest) *process {
	n.t.Helper()
	l, err := net.Listen("unix", m.Health)
	if err != nil {
		n.t.Fatal(err)
	}
	p := new(process)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/startupz" {
			http.NotFound(w, r)
		} else if !p.proven.Load() {
			http.Error(w, "[-]kek: vault is sealed\n[+]socket ok", http.StatusServiceUnavailable)
		}
	})}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	p.stop = func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			n.t.Error(err)
		}
		done <- http.ErrServerClosed // for another call
	}
	n.t.Cleanup(p.stop)
	return p
}

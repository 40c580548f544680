// SPDX-License-Identifier: Apache-2.0

package staticpod_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trousseau-io/trousseau/internal/ctl/staticpod"
)

const copied = "etc/trousseau.d/kube-system.trousseau/credentials"

// mount replaces the Secret's volume as kubelet does.
func (n node) mount(version string, files map[string]string) {
	n.t.Helper()
	n.mkdir("secret/.." + version)
	for name, content := range files {
		n.write("secret/.."+version+"/"+name, content)
		_ = os.Symlink("..data/"+name, n.path("secret/"+name))
	}
	_ = os.Remove(n.path("secret/..data"))
	if err := os.Symlink(".."+version, n.path("secret/..data")); err != nil {
		n.t.Fatal(err)
	}
}

// copies returns the names and contents of the copied files, as the pod sees them.
func (n node) copies() string {
	n.t.Helper()
	var all []string
	for name := range strings.FieldsSeq(n.list(copied)) {
		if !strings.HasPrefix(name, "..") {
			all = append(all, name+"="+n.content(copied+"/"+name))
		}
	}
	return strings.Join(all, " ")
}

func TestCredentials(t *testing.T) {
	n := newNode(t)
	m := n.revision("image:1")
	n.start(m).proven.Store(true)
	core, logs := observer.New(zap.DebugLevel)
	o := n.options(m)
	o.Credentials, o.Logger = n.path("secret"), zap.New(core)
	check := func(when, want string) {
		t.Helper()
		if got := n.copies(); got != want {
			t.Errorf("%s: the node has %s, want %s", when, got, want)
		}
		// Besides the files: ..data and its target.
		if got, want := len(strings.Fields(n.list(copied))), len(strings.Fields(want))+2; got != want {
			t.Errorf("%s: the node has %s", when, n.list(copied))
		}
	}

	n.mount("1", map[string]string{"tls.crt": "cert1", "tls.key": "key1"})
	n.mustSettle(o)
	check("at first", "tls.crt=cert1 tls.key=key1")
	for name, want := range map[string]os.FileMode{"": 0o700, "/..data/": 0o700, "/tls.key": 0o600} {
		info, err := os.Stat(n.path(copied + name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v, want %v", copied+name, info.Mode(), err, want)
		}
	}
	written := len(logs.FilterMessage("credentials copied to this node").All())
	n.mustSettle(o)
	if got := len(logs.FilterMessage("credentials copied to this node").All()); got != written {
		t.Errorf("written again, although nothing has changed")
	}

	n.mount("2", map[string]string{"tls.crt": "cert2", "secret-id": "id2"})
	n.mustSettle(o)
	check("changed, one removed, one added", "secret-id=id2 tls.crt=cert2")

	n.mount("3", nil)
	n.mustWait(o, "the Secret with the credentials is empty; the copy on this node is kept")
	check("the Secret is empty", "secret-id=id2 tls.crt=cert2")
	n.remove("etc/manifests/" + m.Name + ".yaml")
	n.mustWait(o, "empty")
	if n.list("etc/manifests") == "" {
		t.Error("the manifest is not put back while the Secret is empty")
	}

	n.remove("secret")
	n.mustWait(o, "reading the credentials")
	check("the volume is not there", "secret-id=id2 tls.crt=cert2")

	n.mkdir("secret")
	n.mount("4", map[string]string{"token": "token4"})
	n.mustSettle(o)
	for name, spoil := range map[string]func(){
		"removed":     func() { n.remove(copied + "/token") },
		"all removed": func() { n.remove("etc/trousseau.d") },
		"edited":      func() { n.write(copied+"/token", "") },
		"replaced":    func() { n.remove(copied + "/token"); n.write(copied+"/token", "token4") },
		"readable":    func() { _ = os.Chmod(n.path(copied+"/token"), 0o644) },
		"a stranger":  func() { n.write(copied+"/stranger", "x") },
		"a leftover":  func() { n.mkdir(copied + "/..version-1") },
	} {
		spoil()
		n.mustSettle(o)
		check(name, "token=token4")
		if info, err := os.Stat(n.path(copied + "/token")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}

	for _, e := range logs.All() {
		if text := fmt.Sprint(e); strings.Contains(text, "key1") || strings.Contains(text, "id2") || strings.Contains(text, "token4") {
			t.Errorf("logged: %s", text)
		}
	}

	o.Credentials = ""
	n.mustSettle(o)
	if got := n.list(filepath.Dir(copied)); got != "" {
		t.Errorf("no credentials are wanted any more, but the node has %s", got)
	}
}

// Without a manifest of a new revision that is proven, nothing that an old one may need
// is removed.
func TestCredentialsOfOldRevision(t *testing.T) {
	n := newNode(t)
	old, m := n.revision("image:1"), n.revision("image:2")
	n.start(old).proven.Store(true)
	n.mount("1", map[string]string{"token": "token1"})
	o := n.options(old)
	o.Credentials = n.path("secret")
	n.mustSettle(o)
	n.mustWait(staticpod.Options{Manifest: m, Directory: o.Directory}, "does not answer")
	if got, want := n.copies(), "token=token1"; got != want {
		t.Errorf("the node has %s, want %s", got, want)
	}
}

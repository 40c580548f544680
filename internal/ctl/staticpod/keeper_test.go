// SPDX-License-Identifier: Apache-2.0

package staticpod_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestInstall(t *testing.T) {
	n := newNode(t)
	m := n.revision("image:1")
	n.mustWait(n.options(m), "the manifest is in place, but its process does not answer yet: dial unix "+m.Health+": connect: no such file or directory: "+
		"check the pod with kubectl -n kube-system describe pods, and kubelet's log on this node")
	if got, want := n.list("etc/manifests"), m.Name+".yaml"; got != want {
		t.Errorf("the directory has %s, want %s", got, want)
	}
	if got := n.content("etc/manifests/" + m.Name + ".yaml"); got != string(m.Text) {
		t.Errorf("the manifest is\n%s\nwant\n%s", got, m.Text)
	}
	p := n.start(m)
	n.mustWait(n.options(m), "the key is not proven yet: [-]kek: vault is sealed [+]socket ok")
	p.proven.Store(true)
	n.mustSettle(n.options(m))
	if got := n.list("etc/trousseau.d/kube-system.trousseau"); got != "" {
		t.Errorf("left beside the directory: %s", got)
	}
	info, err := os.Stat(n.path("etc/manifests/" + m.Name + ".yaml"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the manifest has mode %v, %v, want 0600", info.Mode(), err)
	}
}

// The old revision keeps its manifest until the new one has proven the key. Nothing else
// is touched, however alike.
func TestUpgrade(t *testing.T) {
	n := newNode(t)
	first, second := n.revision("image:1"), n.revision("image:2")
	others := map[string]string{
		"trousseau.yaml":      "of mode=staticPod",
		"kube-apiserver.yaml": "of kubeadm",
		n.render("other-trousseau", "kube-system", "image:1").Name + ".yaml": string(n.render("other-trousseau", "kube-system", "image:1").Text),
		n.render("trousseau", "other", "image:1").Name + ".yaml":             string(n.render("trousseau", "other", "image:1").Text),
		"trousseau-0123456789.yaml":                                          string(first.Text), // the name of another pod
		"trousseau-aaaaaaaaaa.yaml":                                          "",
		first.Name + ".yml":                                                  string(first.Text),
		"." + first.Name + ".yaml":                                           string(first.Text),
	}
	for name, text := range others {
		n.write("etc/manifests/"+name, text)
	}
	n.mkdir("etc/manifests/trousseau-bbbbbbbbbb.yaml")
	n.write("linked", string(n.revision("image:0").Text))
	if err := os.Symlink(n.path("linked"), n.path("etc/manifests/"+n.revision("image:0").Name+".yaml")); err != nil {
		t.Fatal(err)
	}
	before := n.list("etc/manifests")

	n.mustWait(n.options(first), "does not answer")
	p := n.start(second)
	for range 2 {
		n.mustWait(n.options(second), "the key is not proven yet")
		for _, m := range []string{first.Name, second.Name} {
			if _, err := os.Stat(n.path("etc/manifests/" + m + ".yaml")); err != nil {
				t.Error(err)
			}
		}
	}
	p.proven.Store(true)
	n.mustSettle(n.options(second))
	want := append(strings.Fields(before), second.Name+".yaml")
	slices.Sort(want)
	if got := n.list("etc/manifests"); got != strings.Join(want, " ") {
		t.Errorf("the directory has\n%s\nwant\n%s", got, strings.Join(want, " "))
	}
	for name, text := range others {
		if got := n.content("etc/manifests/" + name); got != text {
			t.Errorf("%s is now\n%s", name, got)
		}
	}
}

// A revision that never proves the key is removed by the next one, or by a rollback.
func TestRollback(t *testing.T) {
	n := newNode(t)
	good, broken := n.revision("image:1"), n.revision("broken")
	n.start(good).proven.Store(true)
	n.start(broken)
	n.mustSettle(n.options(good))
	n.mustWait(n.options(broken), "not proven yet")
	n.mustSettle(n.options(good))
	if got, want := n.list("etc/manifests"), good.Name+".yaml"; got != want {
		t.Errorf("the directory has %s, want %s", got, want)
	}
}

// What somebody removes, edits or empties is put back.
func TestPutBack(t *testing.T) {
	n := newNode(t)
	m := n.revision("image:1")
	n.start(m).proven.Store(true)
	n.mustSettle(n.options(m))
	file := "etc/manifests/" + m.Name + ".yaml"
	for name, spoil := range map[string]func(){
		"removed":                     func() { n.remove(file) },
		"edited":                      func() { n.write(file, strings.Replace(string(m.Text), "image:1", "image:2", 1)) },
		"emptied":                     func() { n.write(file, "") },
		"a broken link":               func() { n.remove(file); _ = os.Symlink("nowhere", n.path(file)) },
		"with the keeper's directory": func() { n.remove(file); n.remove("etc/trousseau.d") },
	} {
		spoil()
		n.mustSettle(n.options(m))
		if got := n.content(file); got != string(m.Text) {
			t.Errorf("%s: the manifest is\n%s", name, got)
		}
	}
}

func TestNoDirectory(t *testing.T) {
	n := newNode(t)
	n.remove("etc/manifests")
	n.mustWait(n.options(n.revision("image:1")), n.path("etc/manifests")+": no such file or directory: set installer.manifestDirectory to the staticPodPath of this node's kubelet")
}

func TestRemove(t *testing.T) {
	n := newNode(t)
	old, m := n.revision("image:1"), n.revision("image:2")
	n.write("secret/token", "hvs.secret")
	n.write("etc/manifests/kube-apiserver.yaml", "of kubeadm")
	o := n.options(m)
	o.Credentials = n.path("secret")
	n.mustWait(n.options(old), "does not answer")
	p := n.start(m)
	p.proven.Store(true)
	o.Remove = true
	n.mustWait(o, "the manifest is removed, and kubelet has not ended the pod yet")
	if got, want := n.list("etc/manifests"), "kube-apiserver.yaml"; got != want {
		t.Errorf("the directory has %s, want %s", got, want)
	}
	p.stop()
	for range 2 {
		n.mustSettle(o)
	}
	if got, want := n.list("etc"), "manifests"; got != want {
		t.Errorf("left: %s, want %s", got, want)
	}
}

// Run goes on until its end, says each state once, and shows it at /readyz.
func TestRun(t *testing.T) {
	n := newNode(t)
	m := n.revision("image:1")
	p := n.start(m)
	core, logs := observer.New(zap.InfoLevel)
	o := n.options(m)
	o.Poll, o.Logger = time.Millisecond, zap.New(core)
	k := n.keeper(o)
	ready := func() string {
		w := httptest.NewRecorder()
		k.Health().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		return http.StatusText(w.Code) + ": " + strings.TrimSpace(w.Body.String())
	}
	if got, want := ready(), "Service Unavailable: the first pass is not done"; got != want {
		t.Errorf("/readyz answers %s, want %s", got, want)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	await := func(want string) {
		t.Helper()
		for limit := time.Now().Add(10 * time.Second); ready() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("/readyz answers %s, want %s", ready(), want)
			}
		}
	}
	await("Service Unavailable: the key is not proven yet: [-]kek: vault is sealed [+]socket ok")
	p.proven.Store(true)
	await("OK: ok")
	n.remove("etc/manifests/" + m.Name + ".yaml")
	for limit := time.Now().Add(10 * time.Second); n.list("etc/manifests") == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the manifest is not put back")
		}
	}
	stop()
	<-done
	if n.list("etc/manifests") == "" {
		t.Error("the manifest is gone")
	}
	var got []string
	for _, e := range logs.All() {
		got = append(got, e.Message)
	}
	want := []string{"manifest written", "not done, trying again", "the key is proven and no other revision is left", "manifest written"}
	if !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
}

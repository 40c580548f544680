// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// A Helm user keeps static pods on three nodes with mode=installer. Upgrades go node by
// node under load; those that do not work stop at the first node, as does one while Vault
// is away. In the middle of that all nodes lose power, and recover with nobody's help.
// What the installer keeps stays after `helm uninstall`, and goes when it is asked to
// remove it.
func TestInstaller(t *testing.T) {
	k := newKeeping(t)
	f := k.fleet
	began := time.Now()
	k.helm("install", "{}")
	f.awaitRollout(installer, 3*time.Minute)
	k.mustServe()
	for _, n := range f.nodes {
		f.mustBeConfined(running(n, "installer")[0].Container("installer"))
		f.mustBeConfined(running(n, "trousseau")[0].Container("trousseau"))
	}
	f.Observe("installed on %d nodes in %s", len(f.nodes), since(began))
	f.encrypt()
	f.node.APIServer.AwaitReady()
	f.node.APIServer.Kubectl("create", "secret", "generic", "hello", "--from-literal=who=world")

	load := f.StartLoad(testbed.LoadOptions{APIServers: []*testbed.APIServer{f.node.APIServer}, Plugins: k.plugins})
	load.AwaitMore(20)
	began = time.Now()
	k.helm("upgrade", "log: {level: debug}")
	f.awaitRollout(installer, 3*time.Minute)
	k.mustServe()
	k.mustHaveGoneNodeByNode(began)
	load.MustHaveNoFailures("upgrade")
	f.Observe("upgraded node by node in %s: %s", since(began), load.Tally().KMS)

	k.rotateCredentials()
	load.MustHaveNoFailures("new credentials")

	// The image is not there, then the login is refused.
	before := k.revisions()
	k.helm("upgrade", "image: {repository: registry.example/missing}")
	f.Await(time.Minute, "an installer without an image", func(context.Context) error { return k.waits("the node has no image registry.example/missing") })
	k.mustKeep(before, load)
	k.helm("upgrade", k.broken)
	f.Await(time.Minute, "an installer that waits", func(context.Context) error { return k.waits("the key is not proven yet") })
	k.mustKeep(before, load)
	tally := load.Stop()
	f.Count(tally.Operations(), tally.Failures())
	load.MustHaveNoFailures("at the end")
	f.Observe("an image that is missing and a login that is refused: each stops at one node, where the old process serves; Secrets: %s; KMS: %s", tally.Secrets, tally.KMS)

	f.Proxy.Refuse()
	k.helm("upgrade", "log: {level: warn}")
	f.Await(time.Minute, "an installer that waits for Vault", func(context.Context) error {
		if got := k.revisions(); len(got) != 3 {
			return fmt.Errorf("revisions %v, want a third", got)
		}
		return k.waits("the key is not proven yet")
	})
	k.mustBeWithinGrace()
	f.Observe("an upgrade during an outage of Vault stops at one node, and Status is ok on all")

	// One node has three manifests. Nothing but the nodes, etcd and the API server is
	// started again.
	f.powerCut()
	began = time.Now()
	f.powerOn()
	f.Await(time.Minute, "the static pods to start without an API server", func(context.Context) error {
		for _, n := range f.nodes {
			if len(running(n, "trousseau")) == 0 {
				return errors.New(n.Name + " has none")
			}
			if _, err := os.Stat(n.Path(socketDir + "/kms.sock")); err != nil {
				return err
			}
		}
		return nil
	})
	started := since(began)
	f.Etcd.Start()
	f.node.APIServer.Start()
	f.node.APIServer.AwaitPage("/livez/ping") // all of /livez takes a minute
	k.mustHaveNoKey()
	began = time.Now()
	f.Proxy.Pass()
	for _, p := range k.plugins {
		f.Await(time.Minute, "a round trip after the power cut", p.RoundTrip)
	}
	served := since(began)
	f.Await(2*time.Minute, "the Secret after the power cut", func(ctx context.Context) error {
		got, err := f.node.APIServer.TryKubectl(ctx, "", "get", "secret", "hello", "-o", "jsonpath={.data.who}")
		if err == nil && got != "d29ybGQ=" {
			err = errors.New("it reads " + got)
		}
		return err
	})
	f.Observe("power cut on all nodes during an outage of Vault: static pods after %s without an API server, all plugins %s after Vault's return, the Secret after %s; no Helm, no kube-controller-manager",
		started, served, since(began))

	f.controllers.Start()
	began = time.Now()
	f.helm.run("rollback", release, "2", "--namespace="+namespace)
	f.awaitRollout(installer, 3*time.Minute)
	k.mustServe()
	if got := k.revisions(); !slices.Equal(got, before) {
		t.Errorf("rolled back: the nodes have %v, want %v", got, before)
	}
	f.Observe("rolled back in %s: what did not work is gone", since(began))

	f.helm.run("uninstall", release, "--namespace="+namespace)
	f.Await(time.Minute, "the installers to end", func(context.Context) error {
		for _, n := range f.nodes {
			if len(running(n, "installer")) > 0 {
				return errors.New(n.Name + " has an installer")
			}
		}
		return nil
	})
	k.mustServe()
	k.helm("install", "installer: {remove: true}")
	f.awaitRollout(installer, 3*time.Minute)
	for _, n := range f.nodes {
		// The process has ended; kubelet may not have noticed.
		f.Await(10*time.Second, n.Name+"'s static pod to be gone", func(context.Context) error {
			if pods := running(n, "trousseau"); len(pods) > 0 {
				return errors.New(pods[0].Name + " is there")
			}
			return nil
		})
		for _, path := range []string{n.Manifests(), n.Path("/etc/kubernetes")} {
			entries, err := os.ReadDir(path)
			if err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() != filepath.Base(n.Manifests()) }) {
				t.Errorf("removed: %s has %v, %v", path, entries, err)
			}
		}
	}
	f.Observe("uninstalled: the static pods serve; removed on request, with the credentials")
	for _, n := range f.nodes {
		f.MustNotHaveLogged(running(n, "installer")[0].Container("installer").Server)
	}
}

// keeping is a fleet whose static pods are kept by an installer, with credentials from a
// Secret.
type keeping struct {
	*fleet
	values  string
	secret  string               // the secret ID
	broken  string               // values of a login that Vault refuses
	plugins []*testbed.Trousseau // by node
}

func newKeeping(t *testing.T) *keeping {
	t.Helper()
	k := &keeping{fleet: newFleet(t, "11 static pods that Helm keeps", 3)}
	k.Vault.CLI("auth", "enable", "approle")
	k.Vault.CLI("write", "auth/approle/role/trousseau", "token_policies=trousseau", "token_ttl=1h")
	k.secret = k.newSecretID()
	k.node.APIServer.Kubectl("--namespace="+namespace, "create", "secret", "generic", "trousseau-credentials", "--from-literal=secret-id="+k.secret)
	const login = `config: {login: {roleID: %q, secretIDFile: /etc/trousseau-credentials/secret-id}}`
	k.values = "--values=" + k.Write("keep.yaml", "mode: installer\ninstaller: {credentials: {secretName: trousseau-credentials}}\n"+
		fmt.Sprintf(login, k.Vault.CLI("read", "-field=role_id", "auth/approle/role/trousseau/role-id")))
	k.broken = fmt.Sprintf(login, "no-such-role")
	return k
}

func (k *keeping) newSecretID() string {
	k.t.Helper()
	id := k.Vault.CLI("write", "-f", "-field=secret_id", "auth/approle/role/trousseau/secret-id")
	k.KeepSecret(id)
	return id
}

// rotateCredentials replaces the secret ID, and makes the old one invalid when every node
// has the new one.
func (k *keeping) rotateCredentials() {
	k.t.Helper()
	began, old := time.Now(), k.secret
	k.secret = k.newSecretID()
	k.node.APIServer.Kubectl("--namespace="+namespace, "patch", "secret", "trousseau-credentials", "--patch", fmt.Sprintf(`{"stringData": {"secret-id": %q}}`, k.secret))
	for _, n := range k.nodes {
		// kubelet does this once a minute.
		if err := running(n, "installer")[0].Sync(k.t.Context()); err != nil {
			k.t.Fatal(err)
		}
		k.Await(30*time.Second, n.Name+" to have the new secret ID", func(context.Context) error {
			text, err := os.ReadFile(n.Path("/etc/kubernetes/trousseau.d/kube-system.trousseau/credentials/secret-id"))
			if err == nil && string(text) != k.secret {
				err = errors.New("it has another one")
			}
			return err
		})
	}
	k.Vault.CLI("write", "auth/approle/role/trousseau/secret-id/destroy", "secret_id="+old)
	k.Observe("new credentials on all nodes in %s", since(began))
}

// helm installs or upgrades with further values.
func (k *keeping) helm(what, values string) {
	k.t.Helper()
	args := append([]string{what, release, chartDir, "--namespace=" + namespace, k.fleet.values, k.values},
		k.with(values)[1:]...)
	k.fleet.helm.run(args...)
}

// mustServe checks that each node has one static pod, and that it serves. It attaches to
// the plugins the first time.
func (k *keeping) mustServe() {
	k.t.Helper()
	for i, n := range k.nodes {
		var pods []*kubelet.Pod
		k.Await(time.Minute, n.Name+" to have one static pod that is ready", func(ctx context.Context) error {
			if pods = running(n, "trousseau"); len(pods) != 1 {
				return fmt.Errorf("it has %d", len(pods))
			}
			return pods[0].Ready(ctx)
		})
		if i == len(k.plugins) {
			k.plugins = append(k.plugins, k.attachTo(n, pods[0], ""))
		}
		k.Await(10*time.Second, n.Name+" to encrypt", k.plugins[i].RoundTrip)
	}
}

// revisions returns the names of the static pods, without duplicates.
func (k *keeping) revisions() []string {
	var all []string
	for _, n := range k.nodes {
		for _, p := range running(n, "trousseau") {
			all = append(all, strings.TrimSuffix(p.Name, "-"+n.Name))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// mustHaveGoneNodeByNode checks that each node's new installer came after the one before
// was ready.
func (k *keeping) mustHaveGoneNodeByNode(since time.Time) {
	k.t.Helper()
	var events []kubelet.Event
	for _, n := range k.nodes {
		for _, e := range n.Events() {
			if e.At.After(since) && strings.HasPrefix(e.Pod, installer+"-") && (e.What == kubelet.Started || e.What == kubelet.Ready) {
				events = append(events, e)
			}
		}
	}
	slices.SortFunc(events, func(a, b kubelet.Event) int { return a.At.Compare(b.At) })
	var got []string
	for i, e := range events {
		if i%2 == 1 && e.Pod != events[i-1].Pod {
			k.t.Errorf("%s is %s, but %s is not yet ready", e.Pod, e.What, events[i-1].Pod)
		}
		got = append(got, e.What)
	}
	if want := slices.Repeat([]string{kubelet.Started, kubelet.Ready}, len(k.nodes)); !slices.Equal(got, want) {
		k.t.Errorf("installers: %v, want %v", got, want)
	}
}

// waits returns nil if exactly one node's installer is not ready, for this reason.
func (k *keeping) waits(why string) error {
	var waiting []string
	for _, n := range k.nodes {
		last := make(map[string]kubelet.Event)
		for _, e := range n.Events() {
			if strings.HasPrefix(e.Pod, installer+"-") {
				last[e.Pod] = e
			}
		}
		for _, p := range n.Pods() {
			if !strings.HasPrefix(p.Name, installer+"-") {
				continue
			}
			err := p.Ready(k.t.Context())
			if e := last[p.Name]; e.What == kubelet.Waiting {
				err = e.Why
			}
			if err != nil {
				waiting = append(waiting, n.Name+": "+err.Error())
			}
		}
	}
	if len(waiting) != 1 || !strings.Contains(waiting[0], why) {
		return fmt.Errorf("waiting: %v, want one: %s", waiting, why)
	}
	return nil
}

// mustKeep checks for some seconds that the revisions stay and serve on all nodes.
func (k *keeping) mustKeep(before []string, load *testbed.Load) {
	k.t.Helper()
	for range 3 {
		load.AwaitMore(50)
		load.MustHaveNoFailures("upgrade that does not work")
		for _, n := range k.nodes {
			if !slices.ContainsFunc(running(n, "trousseau"), func(p *kubelet.Pod) bool {
				return strings.HasPrefix(p.Name, before[0]+"-") && p.Ready(k.t.Context()) == nil
			}) {
				k.t.Errorf("%s has no %s that is ready", n.Name, before[0])
			}
		}
	}
	if got := len(k.revisions()); got > 2 {
		k.t.Errorf("there are %d revisions", got)
	}
}

// mustBeWithinGrace checks that all plugins report the key although Vault is away.
func (k *keeping) mustBeWithinGrace() {
	k.t.Helper()
	for i, p := range k.plugins {
		if s, err := p.KMS.Status(k.t.Context()); err != nil || s.Healthz != "ok" {
			k.t.Errorf("plugin %d reports %+v, %v, want ok", i+1, s, err)
		}
		if err := p.RoundTrip(k.t.Context()); err == nil {
			k.t.Errorf("plugin %d encrypts, but Vault is away", i+1)
		}
	}
}

// mustHaveNoKey checks that no plugin has reached Vault since it started.
func (k *keeping) mustHaveNoKey() {
	k.t.Helper()
	for i, p := range k.plugins {
		if s, err := p.KMS.Status(k.t.Context()); err == nil {
			k.t.Errorf("plugin %d reports %+v, but Vault is away", i+1, s)
		}
	}
}

func since(t time.Time) time.Duration { return time.Since(t).Round(100 * time.Millisecond) }

// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/documented"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// site is a cluster that is taken through the steps of one page while it is used.
type site struct {
	*testbed.Cluster
	t *testing.T
	// variables are those of the page's shell, beside those that [site.run] sets.
	variables map[string]string
	// here replaces text in the page's commands, as [strings.NewReplacer] does: what a
	// variable cannot express, such as the address of a Vault in a file.
	here []string

	page     string
	commands map[string]string // by the name of the step
	executed map[string]bool
	users    *unbroken
}

// newSite prepares a cluster of two API servers, which has no EncryptionConfiguration
// yet; nothing but etcd and Vault runs. page is the name of a file in docs/migrate. At the
// end of the test, every command of it must have been executed.
func newSite(t *testing.T, title, page string, o testbed.Options) *site {
	t.Helper()
	program, err := trousseauctl() // built before the test is timed
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "migrate", page))
	if err != nil {
		t.Fatal(err)
	}
	commands, err := documented.Steps(string(text))
	if err != nil || len(commands) == 0 {
		t.Fatalf("%s: %d commands, %v", page, len(commands), err)
	}
	bed := testbed.New(t, &report, title)
	o.ControlPlanes = max(2, o.ControlPlanes)
	o.TrousseauFlags = append(o.TrousseauFlags, "--probe-interval=1s")
	s := &site{
		Cluster: testbed.NewCluster(bed, o), t: t, page: page, commands: commands,
		variables: make(map[string]string), executed: make(map[string]bool),
	}
	for name, file := range map[string]string{"trousseauctl": program, "vault": bed.Tool("vault"), "kubectl": bed.Tool("kubectl"), "etcdctl": bed.Tool("etcdctl")} {
		if err := errors.Join(os.MkdirAll(filepath.Join(bed.Dir, "bin"), 0o700), os.Symlink(file, filepath.Join(bed.Dir, "bin", name))); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if left := slices.DeleteFunc(slices.Sorted(maps.Keys(commands)), func(name string) bool { return s.executed[name] }); len(left) > 0 && !t.Failed() {
			t.Errorf("%s: never executed: %s", page, strings.Join(left, ", "))
		}
	})
	return s
}

// file returns the path of a node's EncryptionConfiguration, which is $FILE on a page.
func file(n *testbed.Node) string { return filepath.Join(n.Dir, "encryption-config.yaml") }

// encrypt gives every API server a flag and a file with this EncryptionConfiguration. They
// do not reload it: a page's commands restart them, as users without automatic reload do,
// and so every step is also one from cold caches. SOCKET in the text is the socket of the
// node's Trousseau.
func (s *site) encrypt(text string) {
	s.t.Helper()
	for _, n := range s.Nodes {
		s.Write(file(n), strings.ReplaceAll(text, "SOCKET", n.Trousseau.Socket))
		n.APIServer.Args = append(n.APIServer.Args, "--encryption-provider-config="+file(n))
	}
}

// use starts users of all API servers, which must be ready.
func (s *site) use() {
	s.t.Helper()
	var servers []*testbed.APIServer
	for _, n := range s.Nodes {
		servers = append(servers, n.APIServer)
	}
	s.users = startUnbroken(s.t, servers...)
	s.step("before", func() {})
}

// step does something. Everything must have been readable and writable meanwhile, and must
// be afterwards. It observes how the Secrets are then stored.
func (s *site) step(name string, do func()) {
	s.t.Helper()
	s.users.begin(name)
	do()
	s.users.mustHold()
	var ways []string
	for way, n := range s.stored() {
		ways = append(ways, fmt.Sprintf("%d %s", n, way))
	}
	slices.Sort(ways)
	s.Observe("%s: %s", name, strings.Join(ways, ", "))
}

// run executes a command of the page as an administrator and returns its output. If n is
// not nil, the administrator is on that node.
func (s *site) run(name string, n *testbed.Node) string {
	s.t.Helper()
	out, code := s.try(name, n)
	if code != 0 {
		s.t.Fatalf("%s: %s ended with %d:\n%s\n%s", s.page, name, code, s.commands[name], out)
	}
	return out
}

// try is run for a command that may fail. It returns the exit code too.
func (s *site) try(name string, n *testbed.Node) (string, int) {
	s.t.Helper()
	command, ok := s.commands[name]
	if !ok {
		s.t.Fatalf("%s has no step %s", s.page, name)
	}
	s.executed[name] = true
	for i := 0; i < len(s.here); i += 2 {
		command = strings.ReplaceAll(command, s.here[i], s.here[i+1])
	}
	cmd := exec.CommandContext(s.t.Context(), "/bin/sh", "-euc")
	cmd.Dir = s.Dir
	cmd.Env = append(s.Vault.AdminEnvironment("https://"+s.Proxy.Addr),
		"PATH="+filepath.Join(s.Dir, "bin")+":/usr/bin:/bin", "KUBECONFIG="+s.Nodes[0].APIServer.Kubeconfig(), "ETCD=--endpoints="+s.Etcd.URL)
	var servers, ops []string
	for _, n := range s.Nodes {
		servers, ops = append(servers, n.APIServer.URL), append(ops, n.Trousseau.OpsAddr)
	}
	cmd.Env = append(cmd.Env, "API="+strings.Join(servers, ","), "OPS="+strings.Join(ops, ","))
	if n != nil {
		command = strings.ReplaceAll(command, "unix:///run/trousseau/kms.sock", "unix://"+n.Trousseau.Socket)
		cmd.Dir = n.Dir
		cmd.Env = append(cmd.Env, "FILE="+file(n))
	}
	cmd.Args = append(cmd.Args, command)
	for name, value := range s.variables {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	s.t.Logf("$ %s%s", command, &out)
	return out.String(), cmd.ProcessState.ExitCode()
}

// onEach executes a command on every node, one after the other, each as a step of its
// own, and restarts the node's API server.
func (s *site) onEach(name string) {
	s.t.Helper()
	for i, n := range s.Nodes {
		s.step(fmt.Sprintf("%s on node %d", name, i+1), func() {
			s.run(name, n)
			s.users.restart(n.APIServer)
		})
	}
}

// install sets up Vault for Trousseau, and starts an agent and a Trousseau on every node.
// The first API server must run.
func (s *site) install() {
	s.t.Helper()
	s.SetUpVault()
	for _, n := range s.Nodes {
		n.SetUpAgent()
		n.Agent.Start()
		n.Trousseau.Start()
	}
	for _, n := range s.Nodes {
		n.Trousseau.AwaitReady()
	}
}

// stored returns how many Secrets are stored in which way, as the audit counts them:
// "aescbc key1", or "kms v2 trousseau" and the key_id.
func (s *site) stored() map[string]int {
	s.t.Helper()
	program, err := trousseauctl()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := exec.CommandContext(s.t.Context(), program, "audit", "-o=json", "--endpoints="+s.Etcd.URL, "--resource=secrets").Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // Secrets in the clear are a finding
		s.t.Fatal(err)
	}
	var document struct {
		Report struct {
			Resources []struct {
				Groups []struct {
					Form, Name, KeyID string
					Objects           int
				}
			}
		}
	}
	if err := json.Unmarshal(out, &document); err != nil {
		s.t.Fatalf("%v in %s", err, out)
	}
	counts := make(map[string]int)
	for _, r := range document.Report.Resources {
		for _, g := range r.Groups {
			counts[strings.Join(strings.Fields(g.Form+" "+g.Name+" "+g.KeyID), " ")] += g.Objects
		}
	}
	return counts
}

// mustBeStored checks that no Secret is stored in another way than these, which are
// beginnings of what [site.stored] returns.
func (s *site) mustBeStored(ways ...string) {
	s.t.Helper()
	for way, n := range s.stored() {
		if !slices.ContainsFunc(ways, func(w string) bool { return strings.HasPrefix(way, w) }) {
			s.t.Fatalf("%d Secrets are %s, want only %s", n, way, strings.Join(ways, " and "))
		}
	}
}

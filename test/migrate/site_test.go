// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"bytes"
	"context"
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
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/documented"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// site is a cluster that is taken through the steps of one page while it is used.
type site struct {
	*testbed.Cluster
	t *testing.T
	// variables are those of the page's shell, beside those that [site.run] sets.
	variables map[string]string
	// here replaces paths in the page's commands, as [strings.NewReplacer] does.
	here []string

	page     string
	commands map[string]string // by the name of the step
	executed map[string]bool
	users    *unbroken
}

// newSite prepares a cluster of two API servers, which has no EncryptionConfiguration
// yet; nothing but etcd and Vault runs. page is the name of a file in docs/migrate, if need
// be with # and the part that the names of some of its commands begin with. At the end of
// the test, each of these commands must have been executed.
func newSite(t *testing.T, title, page string, o testbed.Options) *site {
	t.Helper()
	program, err := testbed.Trousseauctl() // built before the test is timed
	if err != nil {
		t.Fatal(err)
	}
	page, part, _ := strings.Cut(page, "#")
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "migrate", page))
	if err != nil {
		t.Fatal(err)
	}
	commands, err := documented.Steps(string(text))
	maps.DeleteFunc(commands, func(name, _ string) bool { return !strings.HasPrefix(name, part) })
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
	sockets := filepath.Dir(s.Write("run/placeholder", ""))
	for i, n := range s.Nodes {
		n.APIServer.OnHost(fmt.Sprintf("node%d", i+1), filepath.Join(n.Dir, "run"), sockets)
	}
	s.here = []string{"/run/trousseau", sockets, "/etc/trousseau/vault-ca.pem", s.CAFile()}
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
// and so every step is also one from cold caches. Paths in the text
// are replaced as in a command.
func (s *site) encrypt(text string) {
	s.t.Helper()
	for _, n := range s.Nodes {
		s.Write(file(n), strings.NewReplacer(s.here...).Replace(text))
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
	s.Defer(func() { s.Count(s.users.count()) })
	s.users = startUnbroken(s.t, servers...)
	s.step("before", func() {})
}

// step does something. Everything must have been readable and writable meanwhile, and must
// be afterwards. It observes the progress that the audit shows then.
func (s *site) step(name string, do func()) {
	s.t.Helper()
	s.users.begin(name)
	do()
	s.users.mustHold()
	s.Observe("%s: %s", name, s.audit().progress())
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
	here := s.here
	if n != nil {
		here = append(slices.Clone(here), "/etc/trousseau", n.Dir)
	}
	command = strings.NewReplacer(here...).Replace(command)
	cmd := exec.CommandContext(s.t.Context(), "/bin/sh", "-euc", command)
	cmd.Dir = s.Dir
	cmd.Env = append(s.Vault.AdminEnvironment("https://"+s.Proxy.Addr),
		"PATH="+filepath.Join(s.Dir, "bin")+":/usr/bin:/bin", "KUBECONFIG="+s.Nodes[0].APIServer.Kubeconfig(), "ETCD=--endpoints="+s.Etcd.URL)
	var servers, ops []string
	for _, n := range s.Nodes {
		servers, ops = append(servers, n.APIServer.URL), append(ops, n.Trousseau.OpsAddr)
	}
	cmd.Env = append(cmd.Env, "API="+strings.Join(servers, ","), "OPS="+strings.Join(ops, ","))
	if n != nil {
		cmd.Dir = n.Dir
		cmd.Env = append(cmd.Env, "FILE="+file(n))
	}
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

// install starts an agent and a Trousseau on every node, with a key in a Vault that is set
// up as documented. The first API server must run.
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

// trousseauFirst is an EncryptionConfiguration with Trousseau alone.
const trousseauFirst = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - kms: {apiVersion: v2, name: trousseau, endpoint: "unix:///run/trousseau/kms.sock", timeout: 3s}
`

// installWithToken starts a cluster that has been under Trousseau all the time. Nobody
// renders config.yaml, which has a token.
func (s *site) installWithToken() {
	s.t.Helper()
	s.encrypt(trousseauFirst)
	for _, n := range s.Nodes {
		n.Trousseau.Start()
		n.APIServer.Start()
	}
	s.SetUpVault()
	token := s.Vault.CLI("kv", "get", "-field=vaulttoken", "secret/trousseau/config")
	for _, n := range s.Nodes {
		s.Replace(n.ConfigFile, fmt.Sprintf("provider: vault\nvault:\n  keynames: [%s]\n  address: https://%s\n  token: %s\n  vaultCACert: %s\n",
			testbed.Key, s.Vault.Addresses()[0], token, s.CAFile()))
	}
	for _, n := range s.Nodes {
		n.Trousseau.AwaitReady()
		n.APIServer.AwaitReady()
	}
	s.use()
}

// reload executes a command that changes config.yaml on every node, one after the other,
// and waits until Trousseau has adopted it. No process is restarted.
func (s *site) reload(name string) {
	s.t.Helper()
	pids := s.PIDs()
	for i, n := range s.Nodes {
		s.step(fmt.Sprintf("%s on node %d", name, i+1), func() {
			const generation = "trousseau_generation"
			before := n.Trousseau.MustMetric(generation)
			s.run(name, n)
			s.Await(time.Minute, n.Trousseau.Name+" to adopt its configuration", func(ctx context.Context) error {
				now, _, err := n.Trousseau.Metric(ctx, generation)
				if err == nil && now <= before {
					err = fmt.Errorf("still at generation %v: %s", now, n.Trousseau.Log())
				}
				return err
			})
		})
	}
	s.MustBeSameProcesses(pids)
}

// audited is what the audit says of the Secrets.
type audited struct {
	Objects int
	Groups  []struct {
		Form, Name, KeyID string
		Objects           int
	}
	Progress *struct {
		To   string
		Left []struct {
			Under   string
			Objects int
		}
	}
}

func (s *site) audit() audited {
	s.t.Helper()
	program, err := testbed.Trousseauctl()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := exec.CommandContext(s.t.Context(), program, "audit", "-o=json", "--endpoints="+s.Etcd.URL, "--resource=secrets").Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // Secrets in the clear are a finding
		s.t.Fatal(err)
	}
	var document struct {
		Report struct{ Resources []audited }
	}
	if err := json.Unmarshal(out, &document); err != nil || len(document.Report.Resources) != 1 {
		s.t.Fatalf("%v in %s", err, out)
	}
	return document.Report.Resources[0]
}

// progress is the audit's progress in one line.
func (a audited) progress() string {
	if a.Progress == nil {
		return fmt.Sprintf("all %d stored in one way", a.Objects)
	}
	var left []string
	for _, l := range a.Progress.Left {
		left = append(left, fmt.Sprintf("%d under %s", l.Objects, l.Under))
	}
	return fmt.Sprintf("written last under %s; of %d still %s", a.Progress.To, a.Objects, strings.Join(left, ", "))
}

// stored returns how many Secrets are stored in which way: "aescbc key1", or "kms v2
// trousseau" and the key_id.
func (s *site) stored() map[string]int {
	s.t.Helper()
	counts := make(map[string]int)
	for _, g := range s.audit().Groups {
		counts[strings.Join(strings.Fields(g.Form+" "+g.Name+" "+g.KeyID), " ")] += g.Objects
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

// at makes the page's commands use another Vault, as its administrator. $NEW_VAULT is its
// address.
func (s *site) at(v *testbed.Vault) {
	address := "https://" + v.Addresses()[0]
	s.variables["NEW_VAULT"] = address
	for _, variable := range v.AdminEnvironment(address) {
		if name, value, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "VAULT_") {
			s.variables[name] = value
		}
	}
}

// awaitRotation bounds the time until Trousseau notices a rotation.
const awaitRotation = time.Minute

// allHaveLeft is a condition for [testbed.Bed.Await]: no Trousseau reports the key_id.
func (s *site) allHaveLeft(keyID string) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, n := range s.Nodes {
			status, err := n.Trousseau.KMS.Status(ctx)
			if err != nil {
				return err
			}
			if status.KeyID == keyID {
				return fmt.Errorf("%s still has %s", n.Trousseau.Name, keyID)
			}
		}
		return nil
	}
}

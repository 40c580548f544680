// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator installs Trousseau with trousseauctl's EncryptionConfiguration, runs
// the conformance checks while kube-apiserver uses the plugin, and checks the status
// of the nodes before and after one of them is stopped.
func TestPlugin(t *testing.T) {
	bed := testbed.New(t, &report, "7 trousseauctl encryption-config, conformance and status")
	c := testbed.NewCluster(bed, testbed.Options{ControlPlanes: 2})
	first, second := c.Nodes[0], c.Nodes[1]
	for _, n := range c.Nodes {
		n.APIServer.Start()
	}
	c.SetUpVault()
	for _, n := range c.Nodes {
		n.APIServer.AwaitReady()
		n.SetUpAgent()
		n.Agent.Start()
		n.Trousseau.Start()
		n.Trousseau.AwaitReady()
	}

	file := filepath.Join(first.Dir, "written.yaml")
	bed.Write(file, run(t, 0, "encryption-config", "--phase", "write", "--endpoint", "unix://"+first.Trousseau.Socket))
	first.APIServer.Stop()
	first.APIServer.Args = append(first.APIServer.Args, "--encryption-provider-config="+file)
	first.APIServer.Start()
	first.APIServer.AwaitReady()
	first.APIServer.Kubectl("create", "secret", "generic", "written", "--from-literal=a=b")
	object, err := testbed.Decode(c.Etcd.Stored("default", "written"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := object.GetKeyID(), first.Trousseau.KeyID(); got != want {
		t.Errorf("the Secret is under %q in etcd, want %q", got, want)
	}
	bed.Observe("kube-apiserver encrypts with the written EncryptionConfiguration")

	var document struct {
		Verdict string
		Report  struct {
			Passed int
			Checks []struct{ Name, Result, Detail string }
		}
	}
	decode(t, run(t, 0, "conformance", "--endpoint", "unix://"+first.Trousseau.Socket, "-o", "json"), &document)
	judged := document.Report
	for _, c := range judged.Checks {
		// The latency depends on the machine's load.
		if c.Result != "pass" && !(c.Result == "warn" && strings.HasSuffix(c.Name, "-latency")) {
			t.Errorf("conformance: %s: %s: %s", c.Name, c.Result, c.Detail)
		}
	}
	if document.Verdict != "ok" || len(judged.Checks) < 40 {
		t.Errorf("conformance: %+v", document)
	}
	bed.Observe("conformance with a real Vault: %d of %d checks passed", judged.Passed, len(judged.Checks))

	nodes := []string{"status", opsAddr(t, first.Trousseau), opsAddr(t, second.Trousseau)}
	run(t, 0, append(nodes, "--socket", "unix://"+first.Trousseau.Socket)...)
	second.Trousseau.Stop()
	run(t, 3, nodes...)
	bed.Observe("status: exit code 0 for two nodes, 3 when one is stopped")
}

// run runs trousseauctl and checks its exit code.
func run(t *testing.T, want int, args ...string) string {
	t.Helper()
	program, err := trousseauctl()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != want {
		t.Fatalf("trousseauctl %v: %v, want exit code %d\n%s%s", args, err, want, &out, &errs)
	}
	return out.String()
}

func decode(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

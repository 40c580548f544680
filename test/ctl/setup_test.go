// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// administrator runs commands with the rights of Vault's administrator.
type administrator struct {
	t   *testing.T
	env []string
}

// run returns a command's output and exit code.
func (a administrator) run(name string, args ...string) (stdout, stderr string, code int) {
	a.t.Helper()
	cmd := exec.CommandContext(a.t.Context(), name, args...)
	cmd.Env = a.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		a.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// trousseauctl fails the test unless the command ends with this exit code.
func (a administrator) trousseauctl(want int, args ...string) (stdout, stderr string) {
	a.t.Helper()
	program, err := trousseauctl()
	if err != nil {
		a.t.Fatal(err)
	}
	stdout, stderr, code := a.run(program, args...)
	if code != want {
		a.t.Fatalf("trousseauctl %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, stdout, stderr)
	}
	for _, variable := range a.env {
		if token, found := strings.CutPrefix(variable, "VAULT_TOKEN="); found && strings.Contains(stdout+stderr, token) {
			a.t.Errorf("trousseauctl %s: the output contains the administrator's token", strings.Join(args, " "))
		}
	}
	return stdout, stderr
}

// caFile returns the CA file of the bed's servers.
func (a administrator) caFile() string {
	for _, variable := range a.env {
		if file, found := strings.CutPrefix(variable, "VAULT_CACERT="); found {
			return file
		}
	}
	a.t.Fatal("no CA file")
	return ""
}

func mustHold(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// An administrator prepares one Vault with trousseauctl setup, and a cluster uses
// it. Another Vault is prepared with the commands printed by a dry run: to setup,
// the two are the same.
func TestSetUp(t *testing.T) {
	bed := testbed.New(t, &report, "6 trousseauctl setup")
	c := testbed.NewCluster(bed, testbed.Options{})
	node := c.Nodes[0]
	node.APIServer.Start()
	node.APIServer.AwaitReady()
	node.APIServer.Kubectl("apply", "-f", bed.Write("service-account.yaml", bed.Documented("service-account.yaml")))
	admin := administrator{t, c.Vault.AdminEnvironment("https://" + c.Proxy.Addr)}
	setup := []string{"setup", "--kubernetes-host", node.APIServer.URL, "--kubernetes-ca", admin.caFile()}

	before := c.Vault.CLI("secrets", "list")
	dry, _ := admin.trousseauctl(0, append(setup, "--dry-run")...)
	mustHold(t, dry, "# 9 to be created or changed; nothing was written.\n", "vault kv put -cas=0 secret/trousseau/config", "disable_local_ca_jwt=true")
	if after := c.Vault.CLI("secrets", "list"); after != before {
		t.Errorf("the dry run changed the engines:\n%s\n%s", before, after)
	}

	began := time.Now()
	out, _ := admin.trousseauctl(0, setup...)
	bed.Observe("an empty Vault set up in %s", time.Since(began).Round(time.Millisecond))
	mustHold(t, out, "created  transit engine at transit/\n", "created  secret secret/trousseau/config\n", "\n9 created or changed.\n")
	token := c.Vault.CLI("kv", "get", "-field=vaulttoken", "secret/trousseau/config")
	c.KeepSecret(token)
	again, _ := admin.trousseauctl(0, setup...)
	mustHold(t, again, "Nothing to do: everything exists.\n")
	if strings.Contains(again, "created") || strings.Contains(again, "changed") {
		t.Errorf("the second run changed something:\n%s", again)
	}
	for _, text := range []string{dry, out, again} {
		if strings.Contains(text, token) {
			t.Error("the output contains Trousseau's token")
		}
	}
	if got := c.Vault.CLI("kv", "get", "-field=vaulttoken", "secret/trousseau/config"); got != token {
		t.Error("the second run replaced the token")
	}

	// The cluster works with it.
	node.Trousseau.Start()
	node.SetUpAgent()
	node.Agent.Start()
	node.Trousseau.AwaitReady()
	if err := node.Trousseau.RoundTrip(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.Vault.Try(token, "", "write", "-f", "transit/keys/"+testbed.Key+"/rotate"); err == nil {
		t.Error("Trousseau's token may rotate the key")
	}

	changes(t, c, admin, setup)
	refusals(t, c, admin, setup)

	// The printed commands do the same.
	other := bed.StartVault(testbed.VaultOptions{Name: "other"})
	elsewhere := administrator{t, other.AdminEnvironment("https://" + other.Nodes[0].Addr)}
	for _, how := range [][]string{setup, append(setup, "--login", "--auth-mount=login")} {
		script, _ := elsewhere.trousseauctl(0, append(how, "--dry-run")...)
		if text, errs, code := elsewhere.run("/bin/sh", bed.Write("setup.sh", script)); code != 0 {
			t.Fatalf("the printed commands: exit code %d\n%s%s", code, text, errs)
		}
		same, _ := elsewhere.trousseauctl(0, how...)
		mustHold(t, same, "Nothing to do: everything exists.\n")
	}
	bed.Observe("a second run changes nothing, also after the commands printed by the dry run")
}

// changes reverts a part of the setup by hand; setup then restores it.
func changes(t *testing.T, c *testbed.Cluster, admin administrator, setup []string) {
	t.Helper()
	key := "transit/keys/" + testbed.Key
	c.Vault.CLI("write", key+"/config", "deletion_allowed=true")
	c.Vault.CLIWithInput(`path "transit/*" { capabilities = ["sudo"] }`, "policy", "write", "trousseau", "-")
	c.Vault.CLI("write", "auth/kubernetes/role/trousseau", "bound_service_account_namespaces=kube-system,default", "token_ttl=2h", "token_period=1h")
	out, _ := admin.trousseauctl(0, setup...)
	mustHold(t, out, "changed  key "+key+"\n", "changed  policy trousseau\n", `- path "transit/*" { capabilities = ["sudo"] }`, "\n3 created or changed.\n",
		"token_ttl: 1h, was 7200s", "token_period: 0, was 3600s")
	out, _ = admin.trousseauctl(0, setup...)
	mustHold(t, out, "Nothing to do")
	if got := c.Vault.CLI("read", "-field=deletion_allowed", key); got != "false" {
		t.Errorf("deletion_allowed is %s", got)
	}
	printed, _ := admin.trousseauctl(0, "policy")
	if got := c.Vault.CLI("policy", "read", "trousseau"); got != strings.TrimSpace(printed) {
		t.Errorf("Vault has the policy\n%s\ntrousseauctl policy prints\n%s", got, printed)
	}
	if want := c.Documented("policy.hcl"); printed != want {
		t.Errorf("trousseauctl policy prints\n%s\nthe documentation has\n%s", printed, want)
	}
}

// refusals are harmful requests. None of them changes anything.
func refusals(t *testing.T, c *testbed.Cluster, admin administrator, setup []string) {
	t.Helper()
	c.Vault.CLI("write", "transit/keys/exportable", "exportable=true")
	c.Vault.CLI("write", "transit/keys/rsa", "type=rsa-2048")
	c.Vault.CLI("write", "-f", "transit/keys/another")
	weak := admin
	weak.env = append(append([]string{}, admin.env...), "VAULT_TOKEN="+c.Vault.NewToken().ID)
	for _, r := range []struct {
		admin administrator
		args  []string
		want  string
	}{
		{admin, []string{"--key=exportable"}, "is exportable, so it may have left Vault"},
		{admin, []string{"--key=rsa"}, "is of type rsa-2048, not aes256-gcm96"},
		{admin, []string{"--key=another"}, `names key "trousseau-kms-vault", not "another"`},
		{admin, []string{"--kubernetes-host=https://other.example:6443"}, "auth/kubernetes/config is for the cluster at " + c.Nodes[0].APIServer.URL},
		{weak, nil, `reading sys/mounts at https://` + c.Proxy.Addr + `: permission denied (403)`},
	} {
		_, errs := r.admin.trousseauctl(1, append(setup, r.args...)...)
		mustHold(t, errs, r.want)
	}
	out, _ := admin.trousseauctl(0, setup...)
	mustHold(t, out, "Nothing to do")
}

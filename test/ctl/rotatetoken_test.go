// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An administrator runs rotate-token for secrets with tokens that are not only
// Trousseau's: nothing is created, written or revoked.
func TestRotateTokenRefuses(t *testing.T) {
	bed := testbed.New(t, &report, "6 trousseauctl rotate-token refuses")
	vault := bed.StartVault(testbed.VaultOptions{})
	admin := administrator{t, vault.AdminEnvironment("https://" + vault.Nodes[0].Addr)}
	admin.trousseauctl(0, "setup", "--without-kubernetes")
	create := func(args ...string) string {
		return vault.CLI(append([]string{"token", "create", "-ttl=10m", "-field=token"}, args...)...)
	}
	vault.CLIWithInput(`path "secret/*" { capabilities = ["read", "update"] }`, "policy", "write", "writer", "-")
	vault.CLI("secrets", "enable", "-path=kv1", "-version=1", "kv")
	plugin := vault.CLI("kv", "get", "-field=vaulttoken", "secret/trousseau/config")
	silent := create("-orphan", "-policy=trousseau", "-no-default-policy")
	revoked := create("-orphan", "-policy=trousseau")
	vault.CLIWithInput(revoked, "write", "auth/token/revoke", "token=-")
	other := admin
	other.env = append(append([]string{}, admin.env...), "VAULT_TOKEN="+create("-orphan", "-policy=root"))
	child := admin
	child.env = append(append([]string{}, admin.env...), "VAULT_TOKEN="+create("-policy=root"))
	limited := admin
	limited.env = append(append([]string{}, admin.env...), "VAULT_TOKEN="+create("-orphan", "-policy=writer"))
	const first = "nothing was changed, because some nodes would not get the new token" // the check after those of the token
	const unknown = "neither the token in secret/trousseau/config nor you may look it up"
	byItself := first
	if !bed.IsVault() {
		byItself = unknown // it refuses a dead token as any other
	}
	for _, c := range []struct {
		name   string
		as     administrator
		stored string
		args   []string
		want   string
	}{
		{"your own", admin, rootOf(admin), nil, "the token in secret/trousseau/config is your own, and revoking it would lock you out"},
		{"another administrator's", other, rootOf(admin), nil, "the token in secret/trousseau/config has policy root, not only trousseau, so others may use it"},
		{"more policies", admin, create("-orphan", "-policy=trousseau", "-policy=writer"), nil, "has policy writer, not only trousseau"},
		{"more policies, told so", admin, create("-orphan", "-policy=trousseau", "-policy=writer"), []string{"--any-policies"}, first},
		{"a child of a child", child, plugin, []string{"--orphan=false"}, "--orphan=false: the new token would end with your own one"},
		{"a child of an orphan", admin, plugin, []string{"--orphan=false"}, first},
		{"may not be looked up", limited, silent, nil, unknown},
		{"may be looked up by the administrator", admin, silent, nil, first},
		{"looks itself up", limited, plugin, nil, first},
		{"revoked", admin, revoked, nil, first},
		{"revoked, by itself", limited, revoked, nil, byItself},
		{"a newline after the value", admin, plugin + "\n", nil, first},
		{"no such field", admin, plugin, []string{"--field=vaultoken"}, "has no token in field vaultoken: check --field; its fields are transitkeyname, ttl, vaultaddress, vaulttoken"},
		{"another field", admin, plugin, []string{"--field=vaultaddress"}, "has no token in field vaultaddress"},
		{"KV version 1", admin, plugin, []string{"--kv-mount=kv1"}, "the KV engine at kv1/ is KV version 1, not 2"},
		{"no such secret", admin, plugin, []string{"--cluster=blue"}, "there is no secret secret/trousseau/config-blue in a KV engine of version 2"},
	} {
		vault.CLIWithInput(c.stored, "kv", "patch", "secret/trousseau/config", "vaulttoken=-")
		before := vault.CLI("read", "-field=current_version", "secret/metadata/trousseau/config")
		_, errs := c.as.trousseauctl(1, append([]string{"rotate-token", "--all-nodes", "127.0.0.1:1"}, c.args...)...)
		mustHold(t, errs, c.want)
		if strings.Contains(errs, strings.TrimSpace(c.stored)) {
			t.Errorf("%s: the output contains the token", c.name)
		}
		if after := vault.CLI("read", "-field=current_version", "secret/metadata/trousseau/config"); after != before {
			t.Errorf("%s: the secret was written", c.name)
		}
	}
	if !vault.Accepts(testbed.Token{ID: plugin}) || !vault.Accepts(testbed.Token{ID: rootOf(admin)}) {
		t.Error("a token was revoked")
	}
	bed.Observe("an administrator's token in the KV secret is never revoked")
}

// rotation holds the tested fields of a rotation report.
type rotation struct {
	NewAccessor, OldAccessor string
	OldRevoked               bool
	Nodes                    []struct {
		Node, Reason string
		Moved        bool
	}
}

// rotated is the report in a document.
func rotated(t *testing.T, text string) rotation {
	t.Helper()
	var document struct{ Report rotation }
	decode(t, text, &document)
	return document.Report
}

// An administrator rotates the token of two nodes under load. Then one node's agent
// is stopped: the old token stays valid until the agent runs again.
func TestRotateToken(t *testing.T) {
	bed := testbed.New(t, &report, "6 trousseauctl rotate-token")
	c := testbed.SetUp(bed, testbed.Options{ControlPlanes: 2})
	admin := administrator{t, c.Vault.AdminEnvironment("https://" + c.Proxy.Addr)}
	first, second := c.Nodes[0], c.Nodes[1]
	addrs := []string{opsAddr(t, first.Trousseau), opsAddr(t, second.Trousseau)}
	version := func() string {
		return c.Vault.CLI("read", "-field=current_version", "secret/metadata/trousseau/config")
	}
	token := func() string { return c.Vault.CLI("kv", "get", "-field=vaulttoken", "secret/trousseau/config") }
	alive := func(accessor string) bool {
		_, err := c.Vault.Try(rootOf(admin), "", "token", "lookup", "-accessor", accessor)
		return err == nil
	}
	original := token()
	c.Configure("note=kept")
	before := version()

	dry, _ := admin.trousseauctl(0, append([]string{"rotate-token", "--all-nodes", "--dry-run"}, addrs...)...)
	mustHold(t, dry, "Nothing was written.", "orphan periodic (768h) with policy trousseau", strings.Join(addrs, ", "), "vault token revoke -accessor ")
	_, errs := admin.trousseauctl(1, "rotate-token", "--all-nodes", addrs[0], "127.0.0.1:1")
	mustHold(t, errs, "nothing was changed, because some nodes would not get the new token:\n  127.0.0.1:1: connection refused")
	if version() != before {
		t.Error("the dry run or the refused run wrote the secret")
	}

	load := bed.StartLoad(testbed.LoadOptions{
		APIServers: []*testbed.APIServer{first.APIServer, second.APIServer}, Plugins: []*testbed.Trousseau{first.Trousseau, second.Trousseau},
	})
	load.AwaitMore(20)
	began := time.Now()
	out, errs := admin.trousseauctl(0, append([]string{"rotate-token", "--all-nodes", "-o", "json"}, addrs...)...)
	took := time.Since(began)
	r := rotated(t, out)
	c.KeepSecret(token())
	mustHold(t, errs, addrs[0]+" serves with the new token", addrs[1]+" serves with the new token")
	if !r.OldRevoked || alive(r.OldAccessor) || !alive(r.NewAccessor) || c.Vault.Accepts(testbed.Token{ID: original}) {
		t.Errorf("the old token is still valid, or the new one is revoked: %s", out)
	}
	for _, n := range c.Nodes {
		if err := n.Trousseau.Uses(testbed.Token{Accessor: r.NewAccessor})(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if got := c.Vault.CLI("kv", "get", "-field=note", "secret/trousseau/config"); got != "kept" {
		t.Errorf("another field of the secret is %q", got)
	}
	mustBeAsDocumented(t, c, r.NewAccessor, admin)
	load.AwaitMore(20)
	tally := load.Stop()
	bed.Count(tally.Operations(), tally.Failures())
	load.MustHaveNoFailures("a rotation")
	bed.Observe("two nodes use the new token and the old one is revoked after %s, no request failed", took.Round(100*time.Millisecond))

	// One node's agent is stopped.
	second.Agent.Stop()
	out, _ = admin.trousseauctl(3, append([]string{"rotate-token", "--all-nodes", "--timeout=20s", "-o", "json"}, addrs...)...)
	stuck := rotated(t, out)
	c.KeepSecret(token())
	if stuck.OldRevoked || stuck.OldAccessor != r.NewAccessor || !alive(stuck.OldAccessor) || !alive(stuck.NewAccessor) {
		t.Errorf("want both tokens valid: %s", out)
	}
	if len(stuck.Nodes) != 2 || !stuck.Nodes[0].Moved || stuck.Nodes[1].Moved || !strings.Contains(stuck.Nodes[1].Reason, "check that its Vault Agent runs") {
		t.Errorf("want only the first node to use the new token: %s", out)
	}
	if err := second.Trousseau.RoundTrip(t.Context()); err != nil {
		t.Errorf("the node with the old token: %v", err)
	}
	before = version()
	_, errs = admin.trousseauctl(1, append([]string{"rotate-token", "--all-nodes"}, addrs...)...)
	mustHold(t, errs, "nothing was changed", addrs[1]+": uses another token than the one in secret/trousseau/config: if a rotation was interrupted, use --resume")
	resume := []string{"rotate-token", "--all-nodes", "--timeout=3s", "--resume", stuck.OldAccessor, addrs[0], addrs[1]}
	out, _ = admin.trousseauctl(3, resume...)
	mustHold(t, out, "  old    yes     -", "The old token is NOT revoked: not all nodes serve with the new token after 3s.",
		"trousseauctl rotate-token --resume "+stuck.OldAccessor+" --all-nodes "+strings.Join(addrs, " "), "vault token revoke -accessor "+stuck.OldAccessor)
	_, errs = admin.trousseauctl(1, append([]string{"rotate-token", "--all-nodes", "--resume", stuck.NewAccessor}, addrs...)...)
	mustHold(t, errs, "which is in use: give --resume the accessor of the old token")
	if version() != before || !alive(stuck.OldAccessor) {
		t.Error("the secret was written, or the old token revoked")
	}

	second.Agent.Start()
	resume[2] = "--timeout=60s"
	out, _ = admin.trousseauctl(0, resume...)
	mustHold(t, out, "The old token, with accessor "+stuck.OldAccessor+", is revoked.")
	if alive(stuck.OldAccessor) || !alive(stuck.NewAccessor) {
		t.Error("after --resume: want the old token revoked and the new one valid")
	}
	_, errs = admin.trousseauctl(1, resume...)
	mustHold(t, errs, "vault knows no token with accessor "+stuck.OldAccessor)
	for _, n := range c.Nodes {
		if err := n.Trousseau.RoundTrip(t.Context()); err != nil {
			t.Error(err)
		}
	}
	bed.Observe("a node on the old token kept it valid; --resume revoked it")
	for _, secret := range []string{original, token()} {
		if strings.Contains(out+errs+dry, secret) {
			t.Error("the output contains a token")
		}
	}
}

func rootOf(a administrator) string {
	for _, variable := range a.env {
		if token, found := strings.CutPrefix(variable, "VAULT_TOKEN="); found {
			return token
		}
	}
	return ""
}

// mustBeAsDocumented checks a token's properties.
func mustBeAsDocumented(t *testing.T, c *testbed.Cluster, accessor string, admin administrator) {
	t.Helper()
	text, err := c.Vault.Try(rootOf(admin), "", "token", "lookup", "-format=json", "-accessor", accessor)
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		Data struct {
			Orphan   bool
			Period   int
			Policies []string
		}
	}
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		t.Fatal(err)
	}
	if d := said.Data; !d.Orphan || d.Period != 768*3600 || strings.Join(d.Policies, " ") != "default trousseau" {
		t.Errorf("the new token: %+v, want an orphan with a period of 768h and policy trousseau", d)
	}
}

// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// rotation holds the tested fields of a rotation report.
type rotation struct {
	NewAccessor, OldAccessor string
	OldRevoked               bool
	Nodes                    []struct {
		Node, Reason string
		Moved        bool
	}
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

	dry, _ := admin.trousseauctl(0, append([]string{"rotate-token", "--dry-run"}, addrs...)...)
	mustHold(t, dry, "Nothing was written.", "orphan periodic (768h) with policy trousseau", strings.Join(addrs, " "), "vault token revoke -accessor ")
	_, errs := admin.trousseauctl(1, "rotate-token", addrs[0], "127.0.0.1:1")
	mustHold(t, errs, "nothing was changed, because some nodes would not get the new token:\n  127.0.0.1:1: connection refused")
	if version() != before {
		t.Error("the dry run or the refused run wrote the secret")
	}

	load := bed.StartLoad(testbed.LoadOptions{
		APIServers: []*testbed.APIServer{first.APIServer, second.APIServer}, Plugins: []*testbed.Trousseau{first.Trousseau, second.Trousseau},
	})
	load.AwaitMore(20)
	began := time.Now()
	var r rotation
	out, errs := admin.trousseauctl(0, append([]string{"rotate-token", "-o", "json"}, addrs...)...)
	took := time.Since(began)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	c.KeepSecret(token())
	mustHold(t, errs, addrs[0]+" uses the new token", addrs[1]+" uses the new token")
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
	out, _ = admin.trousseauctl(3, append([]string{"rotate-token", "--timeout=20s", "-o", "json"}, addrs...)...)
	var stuck rotation
	if err := json.Unmarshal([]byte(out), &stuck); err != nil {
		t.Fatal(err)
	}
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
	_, errs = admin.trousseauctl(1, append([]string{"rotate-token"}, addrs...)...)
	mustHold(t, errs, "nothing was changed", addrs[1]+": uses another token than the one in secret/trousseau/config: if a rotation was interrupted, use --resume")
	resume := []string{"rotate-token", "--timeout=3s", "--resume", stuck.OldAccessor, addrs[0], addrs[1]}
	out, _ = admin.trousseauctl(3, resume...)
	mustHold(t, out, "  old    -", "The old token is NOT revoked: not all nodes use the new token after 3s.",
		"trousseauctl rotate-token --resume "+stuck.OldAccessor+" "+strings.Join(addrs, " "), "vault token revoke -accessor "+stuck.OldAccessor)
	_, errs = admin.trousseauctl(1, append([]string{"rotate-token", "--resume", stuck.NewAccessor}, addrs...)...)
	mustHold(t, errs, "which is in use: give --resume the accessor of the old token")
	if version() != before || !alive(stuck.OldAccessor) {
		t.Error("the secret was written, or the old token revoked")
	}

	second.Agent.Start()
	resume[1] = "--timeout=60s"
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

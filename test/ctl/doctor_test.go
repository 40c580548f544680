// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// examined holds the tested fields of doctor's document.
type examined struct {
	Verdict string
	Report  struct {
		Checks []struct{ Check, Subject, Result, Seen string }
	}
	Findings []struct{ ID, Severity, Subject, Text string }
}

// with returns the checks with a result.
func (e examined) with(result string) (names []string) {
	for _, c := range e.Report.Checks {
		if c.Result == result {
			names = append(names, c.Check)
		}
	}
	return slices.Compact(names)
}

// examine runs doctor. The exit code is -1 if the output is not what it should be.
func examine(ctx context.Context, program string, flags ...string) (e examined, code int, text string) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, append([]string{"doctor", "-o", "json"}, flags...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return e, -1, err.Error()
	}
	text = out.String() + errs.String()
	if testbed.HoldsToken(text) {
		return e, -1, "the output contains a token"
	}
	if err := json.Unmarshal(out.Bytes(), &e); err != nil {
		return e, -1, text
	}
	return e, cmd.ProcessState.ExitCode(), text
}

// An operator runs trousseauctl doctor on a node: while everything is healthy, while
// Vault is sealed, and after the token was revoked.
func TestDoctor(t *testing.T) {
	bed := testbed.New(t, &report, "6 trousseauctl doctor")
	c := testbed.SetUp(bed, testbed.Options{TrousseauFlags: []string{"--probe-interval=1s"}})
	node := c.Nodes[0]
	node.APIServer.AwaitPage("/readyz/kms-providers")
	program, err := trousseauctl()
	if err != nil {
		t.Fatal(err)
	}
	ops := ""
	for _, arg := range node.Trousseau.Args {
		if addr, found := strings.CutPrefix(arg, "--ops-addr="); found {
			ops = addr
		}
	}
	doctor := func(ctx context.Context) (examined, int, string) {
		return examine(ctx, program, "--config", node.ConfigFile, "--socket", "unix://"+node.Trousseau.Socket,
			"--ops", ops, "--encryption-config", filepath.Join(node.Dir, "encryption-config.yaml"),
			"--kubeconfig", node.APIServer.Kubeconfig())
	}
	await := func(what string, wantCode int, wantFailed ...string) examined {
		t.Helper()
		var last examined
		bed.Await(time.Minute, "doctor to find "+what, func(ctx context.Context) error {
			e, code, text := doctor(ctx)
			failed := e.with("fail")
			last = e
			if code != wantCode || !slices.Equal(failed, wantFailed) {
				return fmt.Errorf("exit code %d, failed %v, want %d and %v: %s", code, failed, wantCode, wantFailed, text)
			}
			return nil
		})
		return last
	}

	// The documented EncryptionConfiguration still reads plaintext.
	well := await("nothing wrong", 0)
	// The latency depends on the machine's load.
	warned := slices.DeleteFunc(well.with("warn"), func(check string) bool { return check == "round-trip" })
	if got, want := warned, []string{"encryption-identity"}; !slices.Equal(got, want) {
		t.Errorf("warnings %v, want %v", got, want)
	}
	if skipped := well.with("skip"); len(skipped) > 0 {
		t.Errorf("skipped %v, want none", skipped)
	}
	bed.Observe("on a node set up as documented, %d checks: none fails, and one warns of identity", len(well.Report.Checks))

	c.Vault.Nodes[0].Seal()
	sealed := await("Vault sealed", 3, "vault-health", "node")
	bed.Observe("with Vault sealed, vault-health fails, and the node is not ready; %d kinds of checks are skipped because of it", len(sealed.with("skip")))
	c.Vault.Nodes[0].Unseal()
	c.Vault.AwaitActive()
	await("nothing wrong after unsealing", 0)

	token := c.Vault.NewToken()
	c.ConfigureToken(token)
	bed.Await(30*time.Second, "the new token to be rendered", node.Rendered(token.ID))
	await("nothing wrong with another token", 0)
	c.Vault.Revoke(token)
	await("the token revoked", 3, "token", "node")
	bed.Observe("with the token revoked, token fails, and the node is not ready")
}

// patient is a configuration on a Vault with an active node and a standby.
type patient struct {
	*testbed.Bed
	t       *testing.T
	vault   *testbed.Vault
	program string
}

func newPatient(t *testing.T, title string) patient {
	t.Helper()
	bed := testbed.New(t, &report, title)
	program, err := trousseauctl()
	if err != nil {
		t.Fatal(err)
	}
	p := patient{bed, t, bed.StartVault(testbed.VaultOptions{Nodes: 2}), program}
	p.vault.CLI("secrets", "enable", "transit")
	for _, key := range []string{"kek", "older"} {
		p.vault.CLI("write", "-f", "transit/keys/"+key)
	}
	return p
}

// minimal is a policy with what Trousseau needs, and no more.
const minimal = `path "transit/encrypt/kek" { capabilities = ["update"] } path "transit/decrypt/+" { capabilities = ["update"] } ` +
	`path "transit/keys/*" { capabilities = ["read"] } `

// token returns the line of config.yaml with a new token that has the policy.
func (p patient) token(policy string, args ...string) string {
	p.t.Helper()
	p.vault.CLIWithInput(policy, "policy", "write", "p", "-")
	return "token: " + p.vault.CLI(append([]string{"token", "create", "-orphan", "-policy=p", "-period=24h", "-field=token"}, args...)...)
}

// examine returns what doctor found, as "ID SUBJECT", and its output. The active node is
// ACTIVE, the other STANDBY.
func (p patient) examine(keys, credential string) (found []string, text string) {
	p.t.Helper()
	active := p.vault.AwaitActive()
	var others, names []string
	for _, n := range p.vault.Nodes {
		name := "ACTIVE"
		if n != active {
			name, others = "STANDBY", append(others, "https://"+n.Addr)
		}
		names = append(names, "https://"+n.Addr, name)
	}
	file := p.Write("config.yaml", fmt.Sprintf("provider: vault\nvault:\n  keynames: [%s]\n  address: https://%s\n  addresses: [%s]\n  vaultCACert: %s\n  %s\n",
		keys, active.Addr, strings.Join(others, ", "), p.CAFile(), strings.ReplaceAll(credential, "\n", "\n  ")))
	e, code, text := examine(p.t.Context(), p.program, "--config", file, "--socket=", "--ops=", "--request-timeout=1m")
	for _, f := range e.Findings {
		found = append(found, strings.TrimSpace(strings.NewReplacer(names...).Replace(f.Severity+" "+f.ID+" "+f.Subject)))
	}
	failed := slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, "error ") })
	if code != map[bool]int{false: 0, true: 3}[failed] || (e.Verdict == "findings") != failed {
		p.t.Errorf("exit code %d, verdict %s: %s", code, e.Verdict, text)
	}
	return found, text
}

func (p patient) mustFind(what, keys, credential string, want ...string) {
	p.t.Helper()
	if got, text := p.examine(keys, credential); !slices.Equal(got, want) {
		p.t.Errorf("%s: found\n  %s\nwant\n  %s\n%s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "), text)
	}
}

// Doctor leaves a Vault as it is: it creates no mistyped key, whatever the policy allows,
// and does not use up a response-wrapping token. It asks both addresses.
func TestDoctorChangesNothing(t *testing.T) {
	p := newPatient(t, "6 trousseauctl doctor changes nothing")
	v := p.vault
	const (
		create    = `path "transit/encrypt/*" { capabilities = ["create", "update"] } path "transit/decrypt/*" { capabilities = ["create", "update"] } `
		encrypt   = `path "transit/encrypt/*" { capabilities = ["create", "update"] } `
		read      = `path "transit/keys/*" { capabilities = ["read"] } `
		unlimited = `path "*" { capabilities = ["create", "read", "update", "list", "delete", "patch"] }`
	)

	// A mistyped key.
	before := v.CLI("list", "transit/keys")
	for name, test := range map[string]struct {
		policy string
		args   []string
	}{
		"may create":                    {policy: create},
		"may create and read":           {policy: create + read},
		"may create, no default policy": {create, []string{"-no-default-policy"}},
		"may encrypt only":              {policy: encrypt},
		"may encrypt only, no default":  {encrypt, []string{"-no-default-policy"}},
		"may do everything":             {policy: unlimited},
	} {
		credential := p.token(test.policy, test.args...)
		for _, keys := range []string{"mistyped", "kek, mistyped", "mistyped, kek"} {
			found, text := p.examine(keys, credential)
			tells := []string{"error key mistyped", "warning key mistyped", "error token ACTIVE"}
			if !slices.ContainsFunc(found, func(f string) bool { return slices.Contains(tells, f) }) {
				t.Errorf("%s: the key %s is not found to be missing: %s", name, keys, text)
			}
			if after := v.CLI("list", "transit/keys"); after != before {
				t.Fatalf("%s: the keys are\n%s\nafter doctor with %s, before\n%s", name, after, keys, before)
			}
		}
	}
	p.Observe("a mistyped key is found under 6 policies, and never created")

	// Tokens.
	p.mustFind("a token with the right policy", "kek, older", p.token(minimal))
	p.mustFind("a token that may not look itself up", "kek, older", p.token(minimal, "-no-default-policy"),
		"warning token ACTIVE", "warning token STANDBY", "warning policy")
	v.CLI("write", "auth/token/roles/here", "token_bound_cidrs=127.0.0.0/8", "orphan=true", "token_period=24h", "allowed_policies=p,default")
	p.mustFind("a token for this network", "kek", p.token(minimal, "-role=here"), "warning token-networks")
	v.CLI("write", "auth/token/roles/there", "token_bound_cidrs=10.0.0.0/8", "orphan=true", "token_period=24h", "allowed_policies=p,default")
	p.mustFind("a token for another network", "kek", p.token(minimal, "-role=there"), "error token ACTIVE", "error token STANDBY")
	p.mustFind("a batch token", "kek", p.token(minimal, "-type=batch", "-period=", "-ttl=1h"), "warning token-life")
	p.mustFind("a token of few uses", "kek", p.token(minimal, "-use-limit=9"), "error token ACTIVE")

	// Response-wrapping tokens, at the active node and at the standby.
	id := v.CLI("token", "create", "-wrap-ttl=5m", "-field=wrapping_token")
	p.mustFind("a wrapping token", "kek", "token: "+id, "error token ACTIVE", "error token STANDBY")
	if out, err := v.Try(id, "", "unwrap", "-field=token"); err != nil || !testbed.HoldsToken(out) {
		t.Errorf("the wrapping token is spent: %v", err)
	}
	v.CLI("auth", "enable", "approle")
	v.CLI("write", "auth/approle/role/trousseau", "token_policies=p", "token_period=1h")
	role := v.CLI("read", "-field=role_id", "auth/approle/role/trousseau/role-id")
	id = v.CLI("write", "-f", "-wrap-ttl=5m", "-field=wrapping_token", "auth/approle/role/trousseau/secret-id")
	p.mustFind("a wrapped secret ID", "kek", "roleID: "+role+"\nsecretID: "+id, "error login")
	secret, err := v.Try(id, "", "unwrap", "-field=secret_id")
	if err != nil {
		t.Fatalf("the wrapping token is spent: %v", err)
	}
	p.mustFind("a secret ID", "kek", "roleID: "+role+"\nsecretID: "+secret)
	if left, err := v.LeasesFrom(t.Context(), "approle"); err != nil || len(left) > 0 {
		t.Errorf("%v, %d tokens of the login are left", err, len(left))
	}
	p.Observe("tokens without lookup-self, for other networks, of few uses, wrapped and batch tokens are told apart; a wrapping token keeps its use")
}

// Doctor finds a node that is no longer a member of the cluster.
func TestDoctorFindsARemovedNode(t *testing.T) {
	p := newPatient(t, "6 trousseauctl doctor, a removed node of Vault")
	p.NeedsVault("its health does not say that a node was removed")
	v, credential := p.vault, p.token(minimal)
	for _, n := range v.Nodes {
		if n != v.AwaitActive() {
			v.CLI("operator", "raft", "remove-peer", n.Name)
		}
	}
	p.Await(time.Minute, "doctor to find a removed node", func(context.Context) error {
		if _, text := p.examine("kek", credential); !strings.Contains(text, "was removed from its cluster") {
			return errors.New(text)
		}
		return nil
	})
	p.mustFind("a removed node", "kek", credential, "error vault-health STANDBY")
}

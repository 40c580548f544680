// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// refusal is a mistake in the KV secret.
type refusal struct {
	name string
	// make makes the mistake.
	make func()
	// class and logged are Trousseau's names for it.
	class  string
	logged string
	// mend corrects the mistake without changing the KV secret. If it is nil, the old
	// content is restored.
	mend func()
}

// An operator changes the KV secret to something that cannot work, or that would
// orphan the data in etcd. Each time the old client keeps serving, log and metric
// name the mistake, and correcting it is enough. Shortened: the agent checks every
// two seconds.
func TestRefusedReloads(t *testing.T) {
	bed := testbed.New(t, &report, "8 refused reloads")
	c := testbed.SetUp(bed, testbed.Options{
		Fields:        []string{"transitpath=transit"},
		TemplateLines: []string{"transitPath: {{ .Data.data.transitpath }}"},
	})
	node := c.Nodes[0]
	trousseau := node.Trousseau

	// The token may use every key of every engine, so that Trousseau refuses the
	// change and not Vault.
	c.Vault.CLIWithInput(`path "+/encrypt/+" { capabilities = ["update"] }
path "+/decrypt/+" { capabilities = ["update"] }
path "+/keys/+" { capabilities = ["read"] }`, "policy", "write", "wide", "-")
	token := c.Vault.NewToken("wide")
	c.ConfigureToken(token)
	bed.Await(time.Minute, "the token that may use every key", trousseau.Uses(token))
	c.Vault.CLI("write", "-f", "transit/keys/another")
	c.Vault.CLI("secrets", "enable", "-path=elsewhere", "transit")
	c.Vault.CLI("write", "-f", "elsewhere/keys/"+testbed.Key)

	// Another Vault with the same setup.
	other := bed.StartVault(testbed.VaultOptions{Name: "other-vault"})
	other.CLI("secrets", "enable", "transit")
	other.CLI("write", "-f", "transit/keys/"+testbed.Key)
	other.CLIWithInput(c.Documented("policy.hcl"), "policy", "write", "trousseau", "-")
	stranger, powerless := other.NewToken(), c.Vault.NewToken("powerless")

	load := bed.StartLoad(loadOn(node))
	for _, r := range []refusal{{
		name:  "another key",
		make:  func() { c.Configure("transitkeyname=another") },
		class: "refused_key", logged: "does not list the key " + testbed.Key + ", under which data is encrypted",
	}, {
		name:  "another mount",
		make:  func() { c.Configure("transitpath=elsewhere") },
		class: "refused_engine", logged: "names the transit engine elsewhere, but data is encrypted by transit",
	}, {
		name:  "another Vault",
		make:  func() { c.ConfigureToken(stranger, "vaultaddress=https://"+other.Nodes[0].Addr) },
		class: "refused_vault", logged: "Vault cannot decrypt what the current one encrypts",
	}, {
		name:  "a token without policy",
		make:  func() { c.ConfigureToken(powerless) },
		class: "denied", logged: "its policy lacks",
		mend: func() { c.Vault.CLIWithInput(c.Documented("policy.hcl"), "policy", "write", "powerless", "-") },
	}, {
		name:  "a typo in the key's name",
		make:  func() { c.Configure("transitkeyname=trousseau-kms-vautl") },
		class: "refused_key", logged: "does not list the key " + testbed.Key,
	}, {
		name:  "a typo in the address",
		make:  func() { c.Configure("vaultaddress=htps://" + c.Proxy.Addr) },
		class: "config", logged: "must begin with https://",
	}} {
		refuse(t, c, load, r, func() {
			c.ConfigureToken(token, "transitkeyname="+testbed.Key, "transitpath=transit", "vaultaddress=https://"+c.Proxy.Addr)
		})
	}
	tally := load.Stop()
	bed.Count(tally.Operations(), tally.Failures())
	load.MustHaveNoFailures("at the end")
	bed.Observe("Secrets: %s; Encrypt and Decrypt: %s", tally.Secrets, tally.KMS)
}

// refuse makes one mistake, checks what Trousseau reports, and corrects it.
func refuse(t *testing.T, c *testbed.Cluster, load *testbed.Load, r refusal, restore func()) {
	t.Helper()
	trousseau := c.Nodes[0].Trousseau
	generation, from := trousseau.MustMetric("trousseau_generation"), len(trousseau.Log())

	r.make()
	noticed := c.Await(30*time.Second, r.name+" in the metrics", trousseau.MetricIs(1, "trousseau_config_last_reload_error_info", "class", r.class))
	c.Await(5*time.Second, r.name+" in the log", trousseau.Logged(from, r.logged))
	c.Await(5*time.Second, "the log to report the refusal", trousseau.Logged(from, "configuration refused; the previous one keeps serving"))
	load.AwaitMore(20)
	load.MustHaveNoFailures(r.name)
	if got := trousseau.MustMetric("trousseau_config_last_reload_successful"); got != 0 {
		t.Errorf("%s: trousseau_config_last_reload_successful is %v, want 0", r.name, got)
	}
	if got := trousseau.MustMetric("trousseau_generation"); got != generation {
		t.Errorf("%s: generation %v, want %v as before", r.name, got, generation)
	}
	if err := trousseau.Ready(t.Context()); err != nil {
		t.Errorf("%s: %v, want it ready with the old client", r.name, err)
	}

	if r.mend == nil {
		restore()
	} else {
		r.mend()
	}
	healed := c.Await(time.Minute, r.name+" to be corrected", trousseau.MetricIs(1, "trousseau_config_last_reload_successful"))
	if _, found, err := trousseau.Metric(t.Context(), "trousseau_config_last_reload_error_info"); found || err != nil {
		t.Errorf("%s: trousseau_config_last_reload_error_info is still there, %v", r.name, err)
	}
	load.AwaitMore(5)
	load.MustHaveNoFailures(r.name + ", corrected")
	c.Observe("%s: class %s after %s, healed %s after the correction", r.name, r.class,
		noticed.Round(100*time.Millisecond), healed.Round(100*time.Millisecond))

	if r.mend != nil {
		// The corrected configuration is in use now; start the next mistake from the
		// usual one.
		adopted := trousseau.MustMetric("trousseau_generation")
		restore()
		c.Await(30*time.Second, "the usual configuration", trousseau.MetricIs(adopted+1, "trousseau_generation"))
	}
}

// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
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

// changes alters a part of the setup by hand. Setup adds what is missing, and takes away
// only what --remove names.
func changes(t *testing.T, c *testbed.Cluster, admin administrator, setup []string) {
	t.Helper()
	const role, config = "auth/kubernetes/role/trousseau", "auth/kubernetes/config"
	key, ca := "transit/keys/"+testbed.Key, c.Vault.CLI("read", "-field=kubernetes_ca_cert", config)
	c.Vault.CLI("write", key+"/config", "deletion_allowed=true")
	loosen := func() {
		c.Vault.CLIWithInput(`path "transit/*" { capabilities = ["sudo"] }`, "policy", "write", "trousseau", "-")
	}
	loosen()
	c.Vault.CLI("write", role, "bound_service_account_namespaces=default", "token_ttl=2h")
	// Any other certificate stands for that of an earlier CA.
	c.Vault.CLI("write", config, "kubernetes_host="+c.Nodes[0].APIServer.URL, "kubernetes_ca_cert=@"+earlierCA(t),
		"disable_local_ca_jwt=true", "issuer=https://issuer.example")
	out, _ := admin.trousseauctl(0, setup...)
	mustHold(t, out, "changed  key "+key+"\n", "changed  policy trousseau\n", "changed  "+config+"\n", "changed  role "+role+"\n", "\n4 created or changed.\n",
		`warning: policy trousseau: it also has path "transit/*": sudo: `, "bound_service_account_namespaces: default,kube-system, was default\n")
	if strings.Contains(out, "           - ") {
		t.Errorf("setup took something away:\n%s", out)
	}
	for field, want := range map[string]string{"issuer": "https://issuer.example", "kubernetes_ca_cert": ca} {
		if got := c.Vault.CLI("read", "-field="+field, config); !strings.HasSuffix(got, want) {
			t.Errorf("%s of the auth method is %s", field, got)
		}
	}
	if got := c.Vault.CLI("read", "-field=token_ttl", role); got != "7200" {
		t.Errorf("token_ttl is %s", got)
	}

	// The printed commands make the same changes.
	loosen()
	c.Vault.CLI("write", config, "kubernetes_host="+c.Nodes[0].APIServer.URL, "kubernetes_ca_cert=@"+earlierCA(t), "disable_local_ca_jwt=true")
	setup = append(setup, "--remove=transit/*", "--remove=bound_service_account_namespaces=default")
	dry, _ := admin.trousseauctl(0, append(setup, "--dry-run")...)
	mustHold(t, dry, "# 3 to be created or changed; nothing was written.\n", `#   - path "transit/*": sudo`, "#   bound_service_account_namespaces: kube-system, was default,kube-system")
	admin.env = append(admin.env, "PATH="+filepath.Dir(c.Tool("vault"))+":/usr/bin:/bin")
	if text, errs, code := admin.run("/bin/sh", c.Write("changes.sh", dry)); code != 0 {
		t.Fatalf("the printed commands: exit code %d\n%s%s", code, text, errs)
	}
	out, _ = admin.trousseauctl(0, setup[:len(setup)-2]...)
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

// earlierCA writes a certificate of another CA.
func earlierCA(t *testing.T) string {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "earlier.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
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

// Two clusters on one Vault: after the second is set up, named or with the flags that
// were once advised, the token of the first still encrypts. A named cluster shares
// nothing.
func TestTwoClusters(t *testing.T) {
	bed := testbed.New(t, &report, "6 trousseauctl setup for two clusters")
	vault := bed.StartVault(testbed.VaultOptions{})
	admin := administrator{t, vault.AdminEnvironment("https://" + vault.Nodes[0].Addr)}
	kubernetes := []string{"--kubernetes-ca", admin.caFile(), "--kubernetes-host"}
	setUp := func(host string, args ...string) string {
		out, _ := admin.trousseauctl(0, append(append([]string{"setup"}, kubernetes...), append([]string{host}, args...)...)...)
		return out
	}
	token := func(secret string) string { return vault.CLI("kv", "get", "-field=vaulttoken", secret) }
	may := func(token, verb, path string) bool {
		_, err := vault.Try(token, "", verb, path, "plaintext=c2VlZA==")
		return err == nil
	}
	encrypts := func(token, key string) bool { return may(token, "write", "transit/encrypt/"+key) }

	setUp("https://10.0.0.1:6443")
	first := token("secret/trousseau/config")
	mustHold(t, setUp("https://10.9.9.9:6443", "--cluster=blue"), "\n7 created or changed.\n")
	blue := token("secret/trousseau/config-blue")
	if !encrypts(first, testbed.Key) || !encrypts(blue, testbed.Key+"-blue") {
		t.Error("a token cannot encrypt")
	}
	if encrypts(first, testbed.Key+"-blue") || encrypts(blue, testbed.Key) {
		t.Error("a token can encrypt with the key of the other cluster")
	}
	for policy, secret := range map[string]string{"trousseau-agent": "secret/trousseau/config-blue", "trousseau-agent-blue": "secret/trousseau/config"} {
		agent := vault.CLI("token", "create", "-policy="+policy, "-ttl=5m", "-field=token")
		if _, err := vault.Try(agent, "", "kv", "get", secret); err == nil {
			t.Errorf("%s may read %s", policy, secret)
		}
	}

	// Without a name of its own, the third one shares. No cluster loses anything.
	out := setUp("https://10.8.8.8:6443", "--key=kek", "--kv-path=red/config", "--auth-mount=red")
	mustHold(t, out, "changed  policy trousseau\n", `warning: policy trousseau: it also has path "transit/encrypt/`+testbed.Key+`": update: `)
	if !encrypts(first, testbed.Key) || !encrypts(token("secret/red/config"), "kek") {
		t.Error("a token cannot encrypt after a third cluster was set up")
	}

	// A wildcard and a rule with other capabilities stay as they were on real Vault too.
	vault.CLIWithInput(`path "transit/*" { capabilities = ["create", "update", "list"] }
path "transit/keys/`+testbed.Key+`" { capabilities = ["update"] } # to rotate it
`, "policy", "write", "trousseau", "-")
	mustHold(t, setUp("https://10.0.0.1:6443"), "changed  policy trousseau\n")
	for path, want := range map[string]string{
		"transit/keys/" + testbed.Key: "read, update", "transit/encrypt/" + testbed.Key: "create, list, update", "transit/keys/other": "create, list, update",
	} {
		if got := vault.CLI("token", "capabilities", first, path); got != want {
			t.Errorf("the token has %s on %s, want %s", got, path, want)
		}
	}
	bed.Observe("three clusters on one Vault: every token still encrypts")
}

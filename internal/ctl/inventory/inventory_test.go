// SPDX-License-Identifier: Apache-2.0

package inventory_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/inventory"
)

// flags has two flags: audit's snapshot, which is a file, and status' timeout.
func flags(command, flag string) (isFile bool, err error) {
	switch command + "." + flag {
	case "audit.snapshot":
		return true, nil
	case "status.timeout", "audit.endpoints", "audit.verify":
		return false, nil
	}
	return false, errors.New("no such flag")
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "clusters.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const head = "apiVersion: trousseau.io/v1\nkind: Inventory\n"

func TestRead(t *testing.T) {
	file := write(t, head+`clusters:
- name: prod-1
  kubeconfig: keys/prod.conf
  context: prod
  namespace: kube-system
  selector: app=kms
  vault: {address: "https://vault:8200", namespace: a, caCert: /etc/ca.pem, tokenFile: prod.token}
  audit: {endpoints: ["https://a:2379", "https://b:2379"], snapshot: prod.db, verify: true}
  status: {timeout: 2s}
- name: old
  ops: [10.0.0.1, 10.0.0.2]
`)
	got, err := inventory.Read(file, flags)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	want := []inventory.Cluster{{
		Name: "prod-1", Kubeconfig: dir + "/keys/prod.conf", Context: "prod", Namespace: "kube-system", Selector: "app=kms",
		Vault:  &inventory.Vault{Address: "https://vault:8200", Namespace: "a", CACert: "/etc/ca.pem", TokenFile: dir + "/prod.token"},
		Audit:  inventory.Flags{"endpoints": {"https://a:2379", "https://b:2379"}, "snapshot": {dir + "/prod.db"}, "verify": {"true"}},
		Status: inventory.Flags{"timeout": {"2s"}},
	}, {Name: "old", Ops: []string{"10.0.0.1", "10.0.0.2"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestMistakes has one mistake each. The error names file, cluster and field.
func TestMistakes(t *testing.T) {
	const good = "- {name: a, ops: [x]}\n"
	for _, c := range []struct{ text, want string }{
		{"", "apiVersion: \"\" is not trousseau.io/v1"},
		{"apiVersion: trousseau.io/v1\nkind: Status\n", "kind: \"Status\" is not Inventory"},
		{head, "clusters: name at least one"},
		{head + "cluster: []\n", `unknown field "cluster"`},
		{head + "clusters: {a: b}\n", "clusters: a object is not allowed here"},
		{head + "clusters:\n- a\n", "clusters[0]: want fields, not a string"},
		{head + "clusters:\n- {ops: [x]}\n", "clusters[0]: name: is missing"},
		{head + "clusters:\n- {name: a b, ops: [x]}\n", `clusters[0]: name: "a b": want at most 63 letters, digits, dots, dashes and underscores`},
		{head + "clusters:\n" + good + good, "cluster a: name: another cluster has it too"},
		{head + "clusters:\n- {name: a}\n", "cluster a: kubeconfig, context or ops is missing: one of them says how to reach the nodes"},
		{head + "clusters:\n- {name: a, kubeconfg: x}\n", `cluster a: unknown field "kubeconfg"`},
		{head + "clusters:\n- {name: a, kubeconfig: [x]}\n", "cluster a: kubeconfig: a array is not allowed here"},
		{head + "clusters:\n- {name: a, name: b, ops: [x]}\n", `yaml: unmarshal errors:` + "\n" + `  line 4: key "name" already set in map`},
		{head + "clusters:\n- {name: a, ops: [x], vault: {tokenFile: t}}\n", "cluster a: vault.address: is missing"},
		{head + "clusters:\n- {name: a, ops: [x], vault: {adress: t}}\n", `cluster a: unknown field "adress"`},
		{head + "clusters:\n- {name: a, ops: [x], vault: {address: v}}\n", "cluster a: vault.tokenFile: give it or vault.tokenEnv: the environment's VAULT_TOKEN is not sent to this address"},
		{head + "clusters:\n- {name: a, ops: [x], vault: {address: v, tokenFile: t, tokenEnv: T}}\n", "cluster a: vault.tokenFile: give it or vault.tokenEnv: the environment's VAULT_TOKEN is not sent to this address"},
		{head + "clusters:\n- {name: a, ops: [x], audit: {snapsht: x}}\n", "cluster a: audit.snapsht: no such flag"},
		{head + "clusters:\n- {name: a, ops: [x], audit: {verify: {}}}\n", "cluster a: audit.verify: want a string, a number, a boolean, or a list of these"},
		{head + "clusters:\n- {name: a, ops: [x], audit: {verify: null}}\n", "cluster a: audit.verify: want a string, a number, a boolean, or a list of these"},
		{head + "clusters:\n- {name: a, ops: [x], audit: {verify: [[x]]}}\n", "cluster a: audit.verify: want a string, a number, a boolean, or a list of these"},
	} {
		file := write(t, c.text)
		_, err := inventory.Read(file, flags)
		if err == nil || err.Error() != file+": "+c.want {
			t.Errorf("%q: got %v\nwant %s", strings.TrimPrefix(c.text, head), err, c.want)
		}
	}
	if _, err := inventory.Read("none.yaml", flags); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("got %v", err)
	}
}

// TestEnvironment checks where an administrator's token comes from.
func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	getenv := func(name string) string {
		return map[string]string{"TOKEN": "from-env", "VAULT_TOKEN": "another"}[name]
	}
	for _, c := range []struct {
		vault       *inventory.Vault
		token, want string
	}{
		{nil, "", ""},
		{&inventory.Vault{Address: "a", TokenFile: file}, "from-file", ""},
		{&inventory.Vault{Address: "a", TokenEnv: "TOKEN"}, "from-env", ""},
		{&inventory.Vault{Address: "a", TokenEnv: "NONE"}, "", "vault.tokenEnv: the variable NONE is not set"},
		{&inventory.Vault{Address: "a", TokenFile: "none"}, "", "vault.tokenFile: open none: no such file or directory"},
	} {
		got, err := inventory.Cluster{Vault: c.vault}.Environment(getenv)
		if got["VAULT_TOKEN"] != c.token || (err != nil || c.want != "") && (err == nil || err.Error() != c.want) {
			t.Errorf("%+v: got %v, %v", c, got, err)
		}
	}
}

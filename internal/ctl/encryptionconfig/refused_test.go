// SPDX-License-Identifier: Apache-2.0

package encryptionconfig_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/encryptionconfig"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"

// secret is the key in the test files. It must not appear in any error.
const secret = "c2VjcmV0IGlzIHNlY3VyZQ=="

const aescbc = "  - aescbc:\n      keys:\n      - name: key1\n        secret: " + secret + "\n"

const ours = "  - kms:\n      apiVersion: v2\n      name: trousseau\n      endpoint: unix:///run/trousseau/kms.sock\n"

func entry(resources string, providers ...string) string {
	return "- resources: [" + resources + "]\n  providers:\n" + strings.Join(providers, "")
}

const identity = "  - identity: {}\n"

// TestRefused covers changes that would make data unreadable or whose result is
// ambiguous.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		text   string
		adjust func(*encryptionconfig.Options)
		want   string
	}{
		{"renamed", entry("secrets", ours, identity), func(o *encryptionconfig.Options) { o.Name = "vault" },
			`resources[0].providers[0].kms is the plugin at unix:///run/trousseau/kms.sock already, as "trousseau": the name is part of every value in etcd and cannot change. Give --name trousseau`},
		{"name of another plugin", entry("secrets", ours, identity), func(o *encryptionconfig.Options) { o.Endpoint = at("unix:///run/other.sock") },
			`resources[0].providers[0].kms is kms v2 "trousseau" at unix:///run/trousseau/kms.sock, not at unix:///run/other.sock: give that --endpoint, or another --name for another plugin. If the endpoint of the plugin has changed, edit it in the file yourself`},
		{"name of a kms v1", entry("secrets", strings.Replace(ours, "v2", "v1", 1), identity), nil,
			`resources[0].providers[0].kms is kms v1 "trousseau": it must stay unchanged, to decrypt what it encrypted. Give another --name`},
		{"another timeout", entry("secrets", ours, identity), func(o *encryptionconfig.Options) { o.Timeout = 5 * time.Second },
			`resources[0].providers[0].kms is kms v2 "trousseau" with a timeout of 3s, not 5s: edit it in the file yourself, or omit --timeout`},
		{"name twice", entry("secrets", ours, identity) + entry("configmaps", identity), func(o *encryptionconfig.Options) { o.Resources = []string{"configmaps"} },
			`kms v2 "trousseau" is in resources[0] already, for secrets, and a kms v2 name must be unique in the file: give another --name for configmaps in resources[1]. The endpoint can be the same`},
		{"name twice, new entry", entry("secrets", ours, identity), func(o *encryptionconfig.Options) { o.Resources = []string{"configmaps"} },
			`kms v2 "trousseau" is in resources[0] already, for secrets, and a kms v2 name must be unique in the file: give another --name for configmaps. The endpoint can be the same`},
		{"shared list", entry("secrets, configmaps", aescbc), nil,
			`resources[0] is for configmaps as well, and its providers are for all of its resources: give --resources secrets,configmaps`},
		{"two lists", entry("secrets", aescbc) + entry("configmaps", identity), func(o *encryptionconfig.Options) { o.Resources = []string{"secrets", "configmaps"} },
			`secrets is in resources[0] and configmaps is in resources[1]: use one run for each, with another --name for the second. The endpoint can be the same`},
		{"one of them new", entry("secrets", aescbc), func(o *encryptionconfig.Options) { o.Resources = []string{"secrets", "configmaps"} },
			`secrets is in resources[0] and configmaps is not in the file: use one run for each, with another --name for the second. The endpoint can be the same`},
		{"below *.*", entry("events", identity) + entry("'*.*'", aescbc), nil,
			`secrets is encrypted by resources[1], as part of "*.*": a separate item could not decrypt what is in etcd. Give --resources '*.*'`},
		{"below *.", entry("'*.'", aescbc), nil,
			`secrets is encrypted by resources[0], as part of "*.": a separate item could not decrypt what is in etcd. Give --resources '*.'`},
		{"wildcard below *.*", entry("'*.*'", aescbc), func(o *encryptionconfig.Options) { o.Resources = []string{"*.apps"} },
			`*.apps is encrypted by resources[0], as part of "*.*": a separate item could not decrypt what is in etcd. Give --resources '*.*'`},
		{"identity first", entry("secrets", identity, aescbc), nil,
			`resources[0] writes plaintext, since identity is first, while aescbc "key1" is still read: so encryption is being disabled. Finish that (rewrite all objects, then remove aescbc "key1"), or move it to the front again`},
		{"identity first, ours there", entry("secrets", identity, ours, aescbc), nil,
			`resources[0] writes plaintext, since identity is first, while aescbc "key1" is still read: so encryption is being disabled. Finish that (rewrite all objects, then remove aescbc "key1"), or move it to the front again`},
		{"no braces", "- {resources: [secrets], providers: [identity: {}]}\n", nil,
			`line 4: resources[0].providers is in a YAML style that this command cannot edit: write each item on its own line, after a -, and run this again`},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(encryptionconfig.Write)
			if c.adjust != nil {
				c.adjust(&o)
			}
			_, err := encryptionconfig.Edit([]byte(head+c.text), o)
			var refused *encryptionconfig.RefusedError
			if !errors.As(err, &refused) || err.Error() != c.want {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

// TestInvalid runs the files in testdata/invalid, one for each mistake, with the
// error in the .txt file beside it. test/apiserver checks that kube-apiserver would
// not load them either.
func TestInvalid(t *testing.T) {
	for _, file := range invalidFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			_, err = encryptionconfig.Edit(text, options(encryptionconfig.Write))
			var invalid *encryptionconfig.InvalidError
			if !errors.As(err, &invalid) || err.Error()+"\n" != string(want) {
				t.Errorf("got %v\nwant %s", err, want)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Error("the key is in the error")
			}
		})
	}
}

func invalidFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/invalid/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	return files
}

// TestOptionsRefused covers mistakes on the command line.
func TestOptionsRefused(t *testing.T) {
	for _, c := range []struct {
		adjust func(*encryptionconfig.Options)
		want   string
	}{
		{func(o *encryptionconfig.Options) { o.Resources = nil }, "resources: is empty; name at least one, such as secrets"},
		{func(o *encryptionconfig.Options) { o.Resources = []string{"secrets", ""} }, "resources: has an empty name; separate names with commas, such as secrets,configmaps"},
		{func(o *encryptionconfig.Options) { o.Resources = []string{"*"} }, `resources: Invalid value: "*": use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources`},
		{func(o *encryptionconfig.Options) { o.Resources = []string{"secrets", "Secrets"} }, `resources: Invalid value: "Secrets": resource name should not contain capital letters`},
		{func(o *encryptionconfig.Options) { o.Resources = []string{"deployments"} }, `resources: "deployments" has a group; write deployments.apps`},
		{func(o *encryptionconfig.Options) { o.Resources = []string{"secrets", "ingresses"} }, `resources: "ingresses" has a group; write ingresses.networking.k8s.io`},
		{func(o *encryptionconfig.Options) { o.Resources = []string{"secret"} }, `resources: "secret" is not in the core group; write its group as well, such as secret.example.com`},
		{func(o *encryptionconfig.Options) { o.Name = "" }, `name: "": want letters, digits, dots, dashes and underscores, such as trousseau; it becomes part of every value in etcd`},
		{func(o *encryptionconfig.Options) { o.Name = "a:b" }, `name: "a:b": want letters, digits, dots, dashes and underscores, such as trousseau; it becomes part of every value in etcd`},
		{func(o *encryptionconfig.Options) { o.Endpoint = endpoint.Endpoint{} }, "endpoint: is missing"},
		{func(o *encryptionconfig.Options) { o.Timeout = -1 }, "timeout: -1ns is not a positive duration such as 3s"},
		{func(o *encryptionconfig.Options) { o.Phase = "both" }, `phase: "both": want read, for every API server first, and then write`},
	} {
		o := options(encryptionconfig.Write)
		c.adjust(&o)
		var mistake *encryptionconfig.OptionError
		if _, err := encryptionconfig.New(o); !errors.As(err, &mistake) || err.Error() != c.want {
			t.Errorf("New: got %v\nwant %s", err, c.want)
		}
		if _, err := encryptionconfig.Edit([]byte(head+entry("secrets", identity)), o); err == nil || err.Error() != c.want {
			t.Errorf("Edit: got %v\nwant %s", err, c.want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
)

const kubeconfig = `apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: one, cluster: {server: "https://one:6443"}}
- {name: two, cluster: {server: "https://two:6443"}}
contexts:
- {name: one, context: {cluster: one, user: admin}}
- {name: two, context: {cluster: two, user: admin}}
users:
- {name: admin, user: {token: the-token}}
`

// TestKubeconfig reads a file that is given, or named in KUBECONFIG, and no error
// quotes it.
func TestKubeconfig(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := write("good", kubeconfig)
	broken := write("broken", "users: the-token\n")
	empty := write("empty", "")
	for _, c := range []struct{ env, file, context, host, err string }{
		{"", good, "", "https://one:6443", ""},
		{"", good, "two", "https://two:6443", ""},
		{good, "", "", "https://one:6443", ""},
		{good, "", "two", "https://two:6443", ""},
		{broken, good, "", "https://one:6443", ""},
		{"", good, "three", "", good + ` has no context "three"`},
		{"", dir + "/none", "", "", "reading " + dir + "/none: no such file or directory"},
		{"", "", "", "", "there is no cluster in KUBECONFIG or ~/.kube/config: give --kubeconfig"},
		{"", empty, "", "", empty + " is not a kubeconfig with a current context"},
		{"", broken, "", "", broken + " is not a kubeconfig with a current context"},
		{broken, "", "", "", "KUBECONFIG or ~/.kube/config is not a kubeconfig with a current context"},
	} {
		t.Setenv("KUBECONFIG", c.env)
		config, err := apiserver.Kubeconfig(c.file, c.context)
		switch {
		case c.err == "" && (err != nil || config.Host != c.host || config.BearerToken != "the-token"):
			t.Errorf("%+v: got %v, %v", c, config, err)
		case c.err != "" && (err == nil || err.Error() != c.err || strings.Contains(err.Error(), "the-token")):
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package encryptionconfig_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/encryptionconfig"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
)

// TestExplain compares the whole text of both phases.
func TestExplain(t *testing.T) {
	text := head + entry("secrets", aescbc, identity)
	read, err := encryptionconfig.Edit([]byte(text), options(encryptionconfig.Read))
	if err != nil {
		t.Fatal(err)
	}
	write, err := encryptionconfig.Edit(read.Text, options(encryptionconfig.Write))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		result encryptionconfig.Result
		want   string
	}{
		{read, `secrets, in resources[0]
written by aescbc "key1"
read by aescbc "key1", kms v2 "trousseau", identity (plaintext)
1 Copy this file to every API server. With --encryption-provider-config-automatic-reload=true, each loads it within about a minute. Without it, restart them one by one.
2 Continue when each of them answers ok:
  kubectl get --raw /readyz/kms-providers
3 Now every API server can read what trousseau encrypts. Run this again with --phase write. Until then, aescbc "key1" still writes.
`},
		{write, `secrets, in resources[0]
written by kms v2 "trousseau"
read by kms v2 "trousseau", aescbc "key1", identity (plaintext)
1 With several API servers, first make sure that all of them have loaded the file of --phase read. One that has not cannot read what the others write from now on.
2 Copy this file to every API server. With --encryption-provider-config-automatic-reload=true, each loads it within about a minute. Without it, restart them one by one.
3 Continue when each of them answers ok:
  kubectl get --raw /readyz/kms-providers
4 Re-encrypt the objects in etcd; give the ops endpoints of all nodes with --ops:
  trousseauctl reencrypt --kubeconfig /etc/kubernetes/admin.conf --resources secrets
5 Remove aescbc "key1" and identity (plaintext) from resources[0] only when trousseauctl audit finds no value that needs it, and no backup that you keep needs it. Such values could no longer be read.
`},
	} {
		e := c.result.Explain()
		var got strings.Builder
		fmt.Fprintf(&got, "%s\nwritten by %s\nread by %s\n", e.Resources, e.Writes, strings.Join(e.Reads, ", "))
		for i, step := range e.Next {
			fmt.Fprintf(&got, "%d %s\n", i+1, step.Text)
			if step.Command != "" {
				fmt.Fprintf(&got, "  %s\n", step.Command)
			}
		}
		if got.String() != c.want {
			t.Errorf("got %s\nwant %s", got.String(), c.want)
		}
		if len(c.result.Findings) != 0 {
			t.Errorf("findings: %+v", c.result.Findings)
		}
	}
}

func TestFindings(t *testing.T) {
	v1 := "  - kms:\n      name: old\n      endpoint: unix:///run/old.sock\n"
	o := options(encryptionconfig.Write)
	o.Timeout, o.Resources = 2*time.Second, []string{"*.*"}
	r, err := encryptionconfig.Edit([]byte(head+entry("deployments", aescbc)+entry("'*.*'", v1)), o)
	if err != nil {
		t.Fatal(err)
	}
	want := []finding.Finding{
		{ID: "not-read-before", Severity: finding.Warning, Subject: "trousseau",
			Text: "Until now this file did not name the plugin: an API server that has not loaded it cannot read what the others write.",
			Do:   "With several API servers, use --phase read first, and --phase write when all of them have loaded that file."},
		{ID: "resource-without-group", Severity: finding.Warning, Subject: "deployments",
			Text: `resources[0]: "deployments" has a group; write deployments.apps. As it is, it encrypts nothing.`},
		{ID: "kms-v1", Severity: finding.Warning, Subject: "old",
			Text: `kms v1 "old": kube-apiserver needs --feature-gates=KMSv1=true for it.`,
			Do:   "Keep both until no value in etcd is encrypted by it."},
		{ID: "timeout-short", Severity: finding.Warning, Subject: "trousseau",
			Text: "The timeout of 2s is not longer than trousseau's --request-timeout, 2.5s by default, so kube-apiserver gives up before trousseau answers.",
			Do:   "Raise the timeout, or lower --request-timeout."},
	}
	if !reflect.DeepEqual(r.Findings, want) {
		t.Errorf("got %+v\nwant %+v", r.Findings, want)
	}
	want4 := encryptionconfig.Step{
		Text:    "Re-encrypt the objects in etcd; give the ops endpoints of all nodes with --ops. Give each RESOURCE that *.* stands for:",
		Command: "trousseauctl reencrypt --kubeconfig /etc/kubernetes/admin.conf --resources RESOURCE,...",
	}
	if next := r.Explain().Next; next[3] != want4 {
		t.Errorf("step 4: got %q, want %q", next[3], want4)
	}
}

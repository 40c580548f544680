// SPDX-License-Identifier: Apache-2.0

package encryptionconfig_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/encryptionconfig"
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
		if len(e.Notes) != 0 {
			t.Errorf("notes: %q", e.Notes)
		}
	}
}

func TestNotes(t *testing.T) {
	v1 := "  - kms:\n      name: old\n      endpoint: unix:///run/old.sock\n"
	o := options(encryptionconfig.Write)
	o.Timeout = 2 * time.Second
	r, err := encryptionconfig.Edit([]byte(head+entry("'*.*'", v1)), func() encryptionconfig.Options { o.Resources = []string{"*.*"}; return o }())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`kms v1 "old": kube-apiserver needs --feature-gates=KMSv1=true for it. Keep both until no value in etcd is encrypted by it.`,
		`The timeout of 2s is not longer than trousseau's --request-timeout, 2.5s by default, so kube-apiserver gives up before trousseau answers. Raise the timeout, or lower --request-timeout.`,
	}
	e := r.Explain()
	if fmt.Sprint(e.Notes) != fmt.Sprint(want) {
		t.Errorf("got %q\nwant %q", e.Notes, want)
	}
	want4 := encryptionconfig.Step{
		Text:    "Re-encrypt the objects in etcd; give the ops endpoints of all nodes with --ops. Give each RESOURCE that *.* stands for:",
		Command: "trousseauctl reencrypt --kubeconfig /etc/kubernetes/admin.conf --resources RESOURCE,...",
	}
	if e.Next[3] != want4 {
		t.Errorf("step 4: got %q, want %q", e.Next[3], want4)
	}
}

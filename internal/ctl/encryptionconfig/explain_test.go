// SPDX-License-Identifier: Apache-2.0

package encryptionconfig_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/encryptionconfig"
)

// TestExplain has the whole text of both phases.
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
1 Give this file to every API server. With --encryption-provider-config-automatic-reload=true each loads it within about a minute; without, restart them one after another.
2 Go on when each of them says ok:
  kubectl get --raw /readyz/kms-providers
3 Then every API server can read what trousseau writes: run this again with --phase write. Until then aescbc "key1" goes on writing.
`},
		{write, `secrets, in resources[0]
written by kms v2 "trousseau"
read by kms v2 "trousseau", aescbc "key1", identity (plaintext)
1 With several API servers: all of them must have loaded the file of --phase read before. One that has not cannot read what the others write from now on.
2 Give this file to every API server. With --encryption-provider-config-automatic-reload=true each loads it within about a minute; without, restart them one after another.
3 Go on when each of them says ok:
  kubectl get --raw /readyz/kms-providers
4 Encrypt what is in etcd already, with --ops and the pages of every node's plugin:
  trousseauctl reencrypt --kubeconfig /etc/kubernetes/admin.conf --resources secrets
5 Remove aescbc "key1" and identity (plaintext) from resources[0] when trousseauctl audit finds nothing under it, and you would restore no backup that has. Not before: what is under it could not be read.
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
		`kms v1 "old": kube-apiserver needs --feature-gates=KMSv1=true as long as it is there: keep both until nothing in etcd is under it.`,
		`The timeout of 2s is not longer than trousseau's own --request-timeout, 2.5s by default: raise the one or lower the other, or kube-apiserver gives up before it gets trousseau's answer.`,
	}
	e := r.Explain()
	if fmt.Sprint(e.Notes) != fmt.Sprint(want) {
		t.Errorf("got %q\nwant %q", e.Notes, want)
	}
	want4 := encryptionconfig.Step{
		Text:    "Encrypt what is in etcd already, with --ops and the pages of every node's plugin, each RESOURCE that *.* stands for:",
		Command: "trousseauctl reencrypt --kubeconfig /etc/kubernetes/admin.conf --resources RESOURCE,...",
	}
	if e.Next[3] != want4 {
		t.Errorf("step 4: got %q, want %q", e.Next[3], want4)
	}
}

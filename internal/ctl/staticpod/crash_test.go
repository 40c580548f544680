// SPDX-License-Identifier: Apache-2.0

package staticpod_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/staticpod"
)

// A keeper ends before any change that it makes on the disk, as by SIGKILL. At no point is a
// manifest incomplete or are both revisions gone, or are credentials mixed, and the next
// keeper completes the work.
func TestKilledAnywhere(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(n node, old, m staticpod.Manifest) staticpod.Options
		// files are all that may be in the directory at any time, creds all states of the
		// copied credentials; the last one of each is the end.
		files func(old, m string) []string
		creds []string
	}{
		{"install", func(n node, _, m staticpod.Manifest) staticpod.Options {
			o := n.options(m)
			o.Credentials = n.path("secret")
			return o
		}, func(_, m string) []string { return []string{"", m} }, []string{"", "tls.crt=cert2", "tls.crt=cert2 tls.key=key2"}},
		{"upgrade", func(n node, old, m staticpod.Manifest) staticpod.Options {
			n.start(old).proven.Store(true)
			o := n.options(old)
			n.mustSettle(o)
			o.Manifest = m
			return o
		}, func(old, m string) []string { return []string{old, old + " " + m, m + " " + old, m} }, []string{""}},
		{"new credentials", func(n node, old, m staticpod.Manifest) staticpod.Options {
			n.mount("1", map[string]string{"tls.crt": "cert1", "tls.key": "key1"})
			o := n.options(m)
			o.Credentials = n.path("secret")
			n.mustSettle(o)
			n.mount("2", map[string]string{"tls.crt": "cert2", "tls.key": "key2"})
			return o
		}, func(_, m string) []string { return []string{m} }, []string{"tls.crt=cert1 tls.key=key1", "tls.crt=cert2 tls.key=key2"}},
		{"put back", func(n node, _, m staticpod.Manifest) staticpod.Options {
			n.write("etc/manifests/"+m.Name+".yaml", "")
			return n.options(m)
		}, func(_, m string) []string { return []string{m} }, []string{""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for step := 1; ; step++ {
				n := newNode(t)
				n.mount("2", map[string]string{"tls.crt": "cert2", "tls.key": "key2"})
				old, m := n.revision("image:1"), n.revision("image:2")
				n.start(m).proven.Store(true)
				o := tc.prepare(n, old, m)
				at, killed := n.killedAt(step, o)

				files := strings.ReplaceAll(n.list("etc/manifests"), ".yaml", "")
				if !slices.Contains(tc.files(old.Name, m.Name), files) {
					t.Errorf("killed before %s: the directory has %q", at, files)
				}
				for _, r := range []staticpod.Manifest{old, m} {
					text := n.content("etc/manifests/" + r.Name + ".yaml")
					spoiled := tc.name == "put back" && text == ""
					if strings.Contains(files, r.Name) && text != string(r.Text) && !spoiled {
						t.Errorf("killed before %s: the manifest is\n%s", at, text)
					}
				}
				if got := n.credentials(); !slices.Contains(tc.creds, got) {
					t.Errorf("killed before %s: the credentials are %s", at, got)
				}

				n.mustSettle(o)
				if got, all := strings.ReplaceAll(n.list("etc/manifests"), ".yaml", ""), tc.files(old.Name, m.Name); got != all[len(all)-1] {
					t.Errorf("killed before %s, then completed: the directory has %s", at, got)
				}
				if got := n.credentials(); got != tc.creds[len(tc.creds)-1] {
					t.Errorf("killed before %s, then completed: the credentials are %s", at, got)
				}
				if !killed {
					t.Logf("killed at each of %d steps", step-1)
					return
				}
			}
		})
	}
}

// killedAt makes a pass that never goes on before its step, as if the process was killed
// there, and returns that step; false if it has fewer.
func (n node) killedAt(step int, o staticpod.Options) (string, bool) {
	n.t.Helper()
	k := n.keeper(o)
	at, ended := make(chan string), make(chan error, 1)
	k.BeforeEachStep(func(name string) {
		if step--; step == 0 {
			at <- name
			select {}
		}
	})
	go func() { ended <- k.Pass(n.t.Context()) }()
	select {
	case name := <-at:
		return name, true
	case err := <-ended:
		if err != nil {
			n.t.Error(err)
		}
		return "its end", false
	}
}

// credentials is copies, and "" before there are any.
func (n node) credentials() string {
	if _, err := os.Stat(n.path(copied)); err != nil {
		return ""
	}
	return n.copies()
}

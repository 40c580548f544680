// SPDX-License-Identifier: Apache-2.0

package textfile_test

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/textfile"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/storedtest"
)

var update = flag.Bool("update", false, "write testdata/audit.prom")

// The file is also what the tests of the chart's alerts know of these metrics.
func TestWrite(t *testing.T) {
	a := audit.New(audit.Options{Prefixes: []string{"/registry/"}, Drill: true})
	ours := func(version, name string) []byte {
		return storedtest.KMSv2("trousseau", seed.Wrapped{KeyID: "transit/kms/v" + version + "@1700000000", Ciphertext: []byte("vault:v" + version + ":" + name)})
	}
	for key, value := range map[string][]byte{
		"/registry/secrets/a/1":          ours("1", "lost"),
		"/registry/secrets/a/2":          ours("2", "good"),
		"/registry/secrets/a/3":          ours("2", "good"),
		"/registry/secrets/a/4":          storedtest.Protobuf(),
		"/registry/secrets/a/5":          []byte("k8s:enc:kms:v2:trousseau:x"),
		"/registry/configmaps/a/1":       storedtest.KMSv1("old", []byte("vault:v1:unknown")),
		"/registry/example.com/ws/a/1":   storedtest.Secretbox("key1"),
		"/registry/pods/a/1":             storedtest.Protobuf(),
		"/registry/secrets/a/not-listed": storedtest.KMSv2("other", seed.Wrapped{KeyID: "1", Ciphertext: []byte("AQIDBA==")}),
	} {
		_ = a.Add(etcd.Object{Key: []byte(key), Value: value})
	}
	var results []drill.Result
	for _, s := range a.Seeds() {
		r := drill.Result{Verdict: drill.Unknown}
		switch {
		case strings.HasSuffix(string(s.Ciphertext), "lost"):
			r.Verdict = drill.Lost
		case strings.HasSuffix(string(s.Ciphertext), "good"):
			r.Verdict = drill.Readable
		}
		results = append(results, r)
	}
	a.Drilled(results)
	var got strings.Builder
	source := audit.Source{Names: []string{"https://127.0.0.1:2379"}, Read: time.Unix(1800000000, 0)}
	if err := textfile.Write(&got, a.Report(source)); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/audit.prom"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

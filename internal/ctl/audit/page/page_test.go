// SPDX-License-Identifier: Apache-2.0

package page_test

import (
	"bytes"
	"fmt"
	"html"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/page"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/storedtest"
)

// eventful has an entry of every kind.
func eventful() audit.Report {
	a := audit.New(audit.Options{Prefixes: []string{"/registry/"}, Drill: true})
	n := int64(0)
	add := func(count int, resource string, value func(i int) []byte) {
		for i := range count {
			n++
			_ = a.Add(etcd.Object{Key: fmt.Appendf(nil, "/registry/%s/default/%d", resource, n), Value: value(i), Revision: n})
		}
	}
	ours := func(version int) func(int) []byte {
		return func(i int) []byte {
			return storedtest.KMSv2("trousseau", seed.Wrapped{
				KeyID:      fmt.Sprintf("team-a/transit/trousseau-kms-vault/v%d@%d", version, 1700000000+version*2600000),
				Ciphertext: fmt.Appendf(nil, "vault:v%d:%d", version, i%7),
			})
		}
	}
	same := func(value []byte) func(int) []byte { return func(int) []byte { return value } }
	add(700, "secrets", ours(3))
	add(200, "secrets", ours(2))
	add(20, "secrets", ours(1))
	add(2, "secrets", same(storedtest.Protobuf()))
	add(40, "secrets", same(storedtest.AESCBC("key1")))
	add(1, "secrets", same([]byte("k8s:enc:kms:v2:x")))
	add(300, "configmaps", ours(3))
	add(60, "configmaps", same(storedtest.KMSv2("aws", seed.Wrapped{KeyID: "arn:aws:kms:eu-west-1:1:key/2", Ciphertext: []byte("x")})))
	add(500, "pods", same(storedtest.Protobuf()))
	add(30, "example.com/widgets", same(storedtest.JSON()))
	add(1, "secrets/<script>alert(1)</script>", same(storedtest.Protobuf()))
	seeds := a.Seeds()
	results := make([]drill.Result, len(seeds))
	for i, s := range seeds {
		results[i] = drill.Result{Verdict: drill.Readable}
		switch {
		case strings.Contains(s.KeyID, "/v1@"):
			results[i] = drill.Result{Verdict: drill.Lost, Reason: "decrypting: version 1 is below min_decryption_version"}
		case strings.HasPrefix(s.KeyID, "arn:"):
			results[i] = drill.Result{Verdict: drill.Unknown, Reason: "its key_id is not one of Trousseau's"}
		}
	}
	a.Drilled(results)
	return a.Report(audit.Source{Kind: "snapshot", Names: []string{"backup.db"}, Revision: 123456, Checksum: etcd.ChecksumMissing, Read: time.Unix(1800000000, 0)})
}

func written(t *testing.T, r audit.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := page.Write(&b, r, page.Options{Version: "v1.2.3"}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestPageSaysWhatTheReportSays checks that nothing of the report is cut off.
func TestPageSaysWhatTheReportSays(t *testing.T) {
	r := eventful()
	source := written(t, r)
	shown := html.UnescapeString(regexp.MustCompile(`(?s)<style>.*</style>|<[^>]*>`).ReplaceAllString(source, ""))
	want := []string{"4 findings", "and 15 more", "v1.2.3", "backup.db", "123456", "1,854 under", "Not encrypted, and not expected to be: 530 objects of 2 resources"}
	for _, f := range r.Findings {
		want = append(append(want, text.Capital(f.Text), text.Capital(f.Do)), f.Examples...)
	}
	for _, a := range r.Answers {
		want = append(append(want, a.Question, a.Verdict), a.Text...)
	}
	for _, k := range r.KeyIDs {
		want = append(want, k.KeyID, k.Hash, k.Provider)
	}
	for _, res := range r.Resources {
		want = append(append(want, res.Name), res.StillUnder()...)
		for _, g := range res.Groups {
			want = append(want, g.Form, g.Name, g.KeyID, g.Problem, text.Number(g.Objects))
		}
	}
	for _, u := range r.Unreadable {
		want = append(want, u.Key, u.Remove)
	}
	for _, f := range r.Drill.Failures {
		want = append(append(want, f.Seed, f.Reason, f.Verdict), f.FirstKeys...)
	}
	for _, w := range append(want, r.Notes...) {
		if !strings.Contains(shown, w) {
			t.Errorf("%q is not on the page", w)
		}
	}
	if strings.Contains(source, storedtest.Secret) {
		t.Error("a value is on the page")
	}
}

// The page loads nothing from elsewhere and runs no scripts.
func TestPageStandsAlone(t *testing.T) {
	source := written(t, eventful())
	for _, forbidden := range []string{`<script`, `<link`, `<img`, `<iframe`, `\son[a-z]+=`, `url\(`, `@import`, `https?://`, `href=`, `src=`, `ZgotmplZ`} {
		if found := regexp.MustCompile(forbidden).FindString(source); found != "" {
			t.Errorf("%q is on the page", found)
		}
	}
	if !strings.Contains(source, "&lt;script&gt;alert(1)&lt;/script&gt;") {
		t.Error("a key with markup is not shown as text")
	}
}

func TestPageOfNothingMuch(t *testing.T) {
	a := audit.New(audit.Options{Prefixes: []string{"/registry/"}})
	_ = a.Add(etcd.Object{Key: []byte("/registry/secrets/a/1"), Value: storedtest.AESGCM("k")})
	source := written(t, a.Report(audit.Source{Kind: "etcd", Names: []string{"127.0.0.1:2379"}, Read: time.Unix(0, 0)}))
	if !strings.Contains(source, "<h2>No findings</h2>") || strings.Contains(source, `id="drill"`) || strings.Contains(source, `id="keys"`) {
		t.Error("want a page without findings")
	}
}

// Small bars remain visible, and no bar exceeds its column.
func TestPageHidesNothing(t *testing.T) {
	source := written(t, eventful())
	bars := regexp.MustCompile(`(?s)<svg viewBox="0 0 1000 10".*?</svg>`).FindAllString(source, -1)
	if len(bars) == 0 {
		t.Fatal("there are no bars")
	}
	for _, bar := range bars {
		for _, rect := range regexp.MustCompile(`x="([0-9.]+)" width="([0-9.]+)"`).FindAllStringSubmatch(bar, -1) {
			var x, width float64
			if _, err := fmt.Sscan(rect[1], &x); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Sscan(rect[2], &width); err != nil {
				t.Fatal(err)
			}
			if width < 3.9 || x+width > 1000.2 {
				t.Errorf("a part from %g with a width of %g in %s", x, width, bar)
			}
		}
	}
	if !strings.Contains(source, `<rect class="malformed" x=`) {
		t.Error("the malformed object has no part in a bar")
	}
}

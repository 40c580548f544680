// SPDX-License-Identifier: Apache-2.0

// Package page_test looks at the HTML report of trousseauctl audit in a browser.
package page_test

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/page"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/storedtest"
)

var update = flag.Bool("update", false, "rewrite the picture in docs/")

// picture is the one in README.md.
const picture = "../../docs/audit.png"

// measure is a script that returns what is wrong with the page.
//
//go:embed measure.js
var measure string

// TestPage measures the page in every width and color scheme: nothing is wider than
// its box, every text has enough contrast, and what depends on width or scheme is as
// it should be. With TROUSSEAU_SCREENSHOTS, a directory, it keeps what it saw.
func TestPage(t *testing.T) {
	browser := start(t)
	for name, r := range map[string]audit.Report{"findings": eventful(), "quiet": quiet()} {
		url := write(t, r)
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{400, 800, 1400} {
				t.Run(fmt.Sprintf("%s-%s-%d", name, scheme, width), func(t *testing.T) {
					tab := open(browser, t, url, width, "screen", scheme)
					for _, wrong := range run(tab, t, chromedp.Evaluate[[]string](fmt.Sprintf("(%s)(%q)", measure, scheme))) {
						t.Error(wrong)
					}
					if dir := os.Getenv("TROUSSEAU_SCREENSHOTS"); dir != "" {
						shot := run(tab, t, chromedp.FullScreenshot(100))
						file := filepath.Join(dir, strings.ReplaceAll(filepath.Base(t.Name()), "/", "-")+".png")
						if err := os.WriteFile(file, shot, 0o600); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
	}
}

// TestPageOnPaper checks that a printed page is dark on white, whatever the scheme,
// and that nothing is folded or scrolls.
func TestPageOnPaper(t *testing.T) {
	tab := open(start(t), t, write(t, eventful()), 800, "print", "dark")
	background := run(tab, t, chromedp.Evaluate[string](`getComputedStyle(document.body).backgroundColor`))
	unfolded := run(tab, t, chromedp.Evaluate[bool](`document.querySelector('#plain table').checkVisibility()`))
	hidden := run(tab, t, chromedp.Evaluate[float64](`Math.max(...[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth))`))
	if background != "rgb(255, 255, 255)" || !unfolded || hidden > 1 {
		t.Errorf("background %s, unfolded %v, %g pixels hidden in a table", background, unfolded, hidden)
	}
}

// TestPicture checks the picture in README.md, and draws it with -update.
func TestPicture(t *testing.T) {
	if *update {
		tab := open(start(t), t, write(t, typical()), 1000, "screen", "light")
		shot := run(tab, t, chromedp.CaptureScreenshot())
		if err := os.WriteFile(picture, shot, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(picture)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 150_000 {
		t.Errorf("%s has %d bytes; want at most 150,000", picture, info.Size())
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "(docs/audit.png)") {
		t.Error("README.md does not show docs/audit.png; make page-test UPDATE=1 draws it")
	}
}

// start starts Chromium, or skips the test if there is none.
func start(t *testing.T) context.Context {
	t.Helper()
	path := os.Getenv("TROUSSEAU_CHROMIUM")
	if path == "" {
		var err error
		if path, err = exec.LookPath("chromium"); err != nil {
			t.Skip("no Chromium: install the package chromium, or set TROUSSEAU_CHROMIUM to its path")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true), chromedp.WSURLReadTimeout(time.Minute))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// open opens a URL in a new tab. A message in its console, such as of a violated
// policy, fails the test.
func open(browser context.Context, t *testing.T, url string, width int64, medium, scheme string) context.Context {
	t.Helper()
	tab, cancel := chromedp.NewContext(browser)
	messages, read := chromedp.Console(tab), make(chan struct{})
	go func() {
		defer close(read)
		for message, err := range messages {
			if err == nil {
				t.Errorf("console: %s", message)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-read })
	media := emulation.SetEmulatedMediaParams{Media: medium, Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	err := chromedp.Do(tab,
		chromedp.EmulateViewport(width, 1000),
		func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
			_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, media)
			return chromedp.Void{}, err
		},
		chromedp.Navigate(url),
	)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func run[T any](tab context.Context, t *testing.T, action chromedp.Action[T]) T {
	t.Helper()
	result, err := chromedp.Run(tab, action)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// write writes the page of r, and returns its URL.
func write(t *testing.T, r audit.Report) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "audit.html"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := page.Write(file, r, page.Options{Title: "production-eu-west-1", Version: "v1.4.0"}); err != nil {
		t.Fatal(err)
	}
	return "file://" + file.Name()
}

// quiet is a small cluster where all is well.
func quiet() audit.Report {
	c := newCluster(false)
	c.add(12, "secrets", version(4))
	return c.Report(audit.Source{Kind: "etcd", Names: []string{"https://10.0.0.1:2379"}, Revision: 90, Read: read})
}

// typical is a cluster after a rotation of its key, with a mistake.
func typical() audit.Report {
	c := newCluster(false)
	c.add(3140, "secrets", version(4))
	c.add(620, "secrets", version(3))
	c.add(3, "secrets", same(storedtest.Protobuf()))
	c.add(880, "configmaps", version(4))
	c.add(1500, "pods", same(storedtest.Protobuf()))
	return c.Report(audit.Source{Kind: "snapshot", Names: []string{"backup.db"}, Revision: 48_123_456, Checksum: etcd.ChecksumOK, Read: read})
}

// eventful is a cluster in which everything that the page can show is there, some of
// it with long names.
func eventful() audit.Report {
	c := newCluster(true)
	c.add(3140, "secrets", version(4))
	c.add(620, "secrets", version(3))
	c.add(41, "secrets", version(2))
	c.add(3, "secrets", same(storedtest.Protobuf()))
	c.add(57, "secrets", same(storedtest.AESCBC("key1")))
	c.add(1, "secrets", same([]byte("k8s:enc:kms:v2:x")))
	c.add(880, "configmaps", version(4))
	c.add(90, "configmaps", same(storedtest.KMSv2("aws", seed.Wrapped{
		KeyID: "arn:aws:kms:eu-west-1:111122223333:key/0f9d2c51-7a64-4a3c-9a2b-6d1c1f6f3d1e", Ciphertext: []byte("x"),
	})))
	c.add(240, "certificaterequests.internal.a-long-group-name.example.com", version(4))
	c.add(1500, "pods", same(storedtest.Protobuf()))
	c.add(420, "events", same(storedtest.Protobuf()))
	for i := range 14 {
		c.add(30+i, fmt.Sprintf("example.com/widgets%d", i), same(storedtest.JSON()))
	}
	seeds := c.Seeds()
	results := make([]drill.Result, len(seeds))
	for i, s := range seeds {
		switch results[i] = (drill.Result{Verdict: drill.Readable}); {
		case strings.Contains(s.KeyID, "/v2@"):
			results[i] = drill.Result{Verdict: drill.Lost, Reason: "decrypting: version 2 is below the key's min_decryption_version"}
		case strings.HasPrefix(s.KeyID, "arn:"):
			results[i] = drill.Result{Verdict: drill.Unknown, Reason: "its key_id is not one of Trousseau's"}
		}
	}
	c.Drilled(results)
	return c.Report(audit.Source{
		Kind: "snapshot", Names: []string{"/var/backups/etcd/production-eu-west-1-2026-11-22T03-00-00Z.db"},
		Revision: 48_123_456, Checksum: etcd.ChecksumOK, Read: read,
	})
}

var read = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// cluster is an etcd under audit.
type cluster struct {
	*audit.Audit
	revision int64
}

func newCluster(drill bool) *cluster {
	return &cluster{Audit: audit.New(audit.Options{Prefixes: []string{"/registry/"}, Drill: drill})}
}

func (c *cluster) add(count int, resource string, value func(i int) []byte) {
	for i := range count {
		c.revision++
		_ = c.Add(etcd.Object{Key: fmt.Appendf(nil, "/registry/%s/team-payments/object-%d", resource, c.revision), Value: value(i), Revision: c.revision})
	}
}

func same(value []byte) func(int) []byte { return func(int) []byte { return value } }

// version returns values under this version of the transit key, with three seeds.
func version(v int) func(int) []byte {
	return func(i int) []byte {
		return storedtest.KMSv2("trousseau", seed.Wrapped{
			KeyID:      fmt.Sprintf("transit/trousseau-kms-vault/v%d@%d", v, 1_740_000_000+v*7_776_000),
			Ciphertext: fmt.Appendf(nil, "vault:v%d:%d", v, i%3),
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package documented_test

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/documented"
)

const root = "../../.."

var (
	fence = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	link  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// TestLinks checks that every relative link leads to a file of the repository and,
// if it has an anchor, to a heading in that file.
func TestLinks(t *testing.T) {
	pages, err := documented.Pages(root)
	if err != nil {
		t.Fatal(err)
	}
	for page, text := range pages {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target, anchor, _ := strings.Cut(m[1], "#")
			to := page
			if target != "" {
				to = path.Join(path.Dir(page), target)
			}
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(to))); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
				continue
			}
			if anchor != "" && !documented.Anchors(fence.ReplaceAllString(pages[to], ""))[anchor] {
				t.Errorf("%s links to %s: %s has no such heading", page, m[1], to)
			}
		}
	}
}

// TestReadmeIsShort keeps details in docs/.
func TestReadmeIsShort(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 200 {
		t.Errorf("README.md has %d lines, want at most 200", n)
	}
}

func TestFiles(t *testing.T) {
	for _, tt := range []struct {
		name          string
		readme, other string
		want          map[string]string
		err           string
	}{
		{
			name:   "two pages",
			readme: "text\n\n<!-- file: a.hcl -->\n```hcl\none\n```\n\n```sh\nnot a file\n```\n",
			other:  "<!-- file: b.txt -->\n```\n two \n```\n",
			want:   map[string]string{"a.hcl": "one\n", "b.txt": " two \n"},
		},
		{
			name:   "twice",
			readme: "<!-- file: a.hcl -->\n```hcl\none\n```\n",
			other:  "<!-- file: a.hcl -->\n```hcl\none\n```\n",
			err:    "file a.hcl is already shown elsewhere",
		},
		{name: "none", readme: "text\n", other: "text\n", err: "shows a file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "docs"), 0o700); err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string]string{"README.md": tt.readme, "CONTRIBUTING.md": "", "docs/other.md": tt.other} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := documented.Files(dir)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			for name, want := range tt.want {
				if got[name] != want {
					t.Errorf("%s: got %q, want %q", name, got[name], want)
				}
			}
		})
	}
}

func TestSteps(t *testing.T) {
	const page = "1. First\n\n   <!-- step: one -->\n   ```sh\n   cat <<EOF\n     a\n   EOF\n   ```\n\n" +
		"<!-- step: two -->\n```sh\nb\n```\n\n```sh\nnot a step\n```\n"
	got, err := documented.Steps(page)
	if want := map[string]string{"one": "cat <<EOF\n  a\nEOF\n", "two": "b\n"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := documented.Steps(page + "\n<!-- step: two -->\n```sh\nc\n```\n"); err == nil || err.Error() != "step two is shown twice" {
		t.Errorf("twice: error %v", err)
	}
}

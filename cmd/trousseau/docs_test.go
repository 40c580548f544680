// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/documented"
)

// repository is the relative path of the repository's root.
const repository = "../.."

// TestDocumentedFlags compares the table in docs/configuration.md with --help: the
// names, and the defaults where both give one.
func TestDocumentedFlags(t *testing.T) {
	var help strings.Builder
	if _, err := parseFlags([]string{"--help"}, &help); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	shown := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^  --(\S+).*\n      (?:.*\(default (.*)\)$)?`).FindAllStringSubmatch(help.String(), -1) {
		shown[m[1]] = m[2]
	}
	const page = "docs/configuration.md"
	listed := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `--(\\S+)` \\| .* \\|(?: `(.*)`|[^`|]*) \\|$").FindAllStringSubmatch(readPage(t, page), -1) {
		name, want := m[1], m[2]
		listed[name] = true
		got, exists := shown[name]
		if !exists {
			t.Errorf("%s lists --%s, which does not exist", page, name)
		} else if got != want && want != "" && !sameDuration(got, want) {
			t.Errorf("%s says that --%s is %s by default, --help says %q", page, name, want, got)
		}
	}
	for name := range shown {
		if !listed[name] {
			t.Errorf("%s does not list --%s", page, name)
		}
	}
}

func sameDuration(a, b string) bool {
	x, err := time.ParseDuration(a)
	y, err2 := time.ParseDuration(b)
	return err == nil && err2 == nil && x == y
}

var (
	quotedMessage = regexp.MustCompile("\\blog\\s+`([^`]+)`")
	errorCode     = regexp.MustCompile("(?m)^\\| [A-Z][A-Za-z]+ \\| ([^|]+) \\| `[a-z_]+` \\|$")
	firstCell     = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")
)

// TestDocumentedMessages checks that the daemon's source has every log message that
// a page quotes, as log `TEXT` or in the table of messages, and every phrase in the
// table of error codes.
func TestDocumentedMessages(t *testing.T) {
	pages, err := documented.Pages(repository)
	if err != nil {
		t.Fatal(err)
	}
	source := daemonSource(t)
	check := func(page string, quotes [][]string) {
		for _, quote := range quotes {
			if !strings.Contains(source, quote[1]) {
				t.Errorf("%s quotes %q, which is not in the daemon's source", page, quote[1])
			}
		}
	}
	for page, text := range pages {
		check(page, quotedMessage.FindAllStringSubmatch(text, -1))
	}
	codes := errorCode.FindAllStringSubmatch(pages["docs/operations.md"], -1)
	_, table, _ := strings.Cut(pages["docs/troubleshooting.md"], "\n## Log messages\n")
	messages := firstCell.FindAllStringSubmatch(table, -1)
	if len(codes) < 10 || len(messages) < 10 {
		t.Errorf("found %d error codes and %d messages, want the tables of docs/operations.md and docs/troubleshooting.md", len(codes), len(messages))
	}
	check("docs/operations.md", codes)
	check("docs/troubleshooting.md", messages)
}

func readPage(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// daemonSource returns the text of the daemon's Go files, without tests.
func daemonSource(t *testing.T) string {
	t.Helper()
	var source strings.Builder
	for _, dir := range []string{"cmd/trousseau", "internal/daemon", "internal/vault", "internal/fault"} {
		err := filepath.WalkDir(filepath.Join(repository, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			source.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return source.String()
}

// SPDX-License-Identifier: Apache-2.0

// Package documented reads README.md and the pages in docs/, so that tests run the
// files and commands shown to users.
package documented

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Pages returns the text of the pages in the top directory of the repository at root,
// in docs/ and in docs/migrate/, by slash-separated relative path.
func Pages(root string) (map[string]string, error) {
	var names []string
	for _, dir := range []string{"", "docs", "docs/migrate"} {
		found, err := filepath.Glob(filepath.Join(root, dir, "*.md"))
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	pages := make(map[string]string)
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		path, err := filepath.Rel(root, name)
		if err != nil {
			return nil, err
		}
		pages[filepath.ToSlash(path)] = string(text)
	}
	return pages, nil
}

var file = regexp.MustCompile("(?ms)^<!-- file: (\\S+) -->\n```\\w*\n(.*?)^```$")

// Files returns the files shown in the pages of the repository at root, by name:
// each fenced block after a line <!-- file: NAME -->. A duplicate name is an error.
func Files(root string) (map[string]string, error) {
	pages, err := Pages(root)
	if err != nil {
		return nil, err
	}
	files := make(map[string]string)
	for path, text := range pages {
		for _, m := range file.FindAllStringSubmatch(text, -1) {
			if _, twice := files[m[1]]; twice {
				return nil, fmt.Errorf("%s: file %s is already shown elsewhere; show it once", path, m[1])
			}
			files[m[1]] = m[2]
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no page of %s shows a file", root)
	}
	return files, nil
}

var command = regexp.MustCompile("(?ms)^( *)<!-- step: (\\S+) -->\n *```sh\n(.*?)^ *```$")

// Steps returns the commands in the text of a page, by name: each fenced block after a
// line <!-- step: NAME -->, without its indentation. A duplicate name is an error.
func Steps(text string) (map[string]string, error) {
	steps := make(map[string]string)
	for _, m := range command.FindAllStringSubmatch(text, -1) {
		if _, twice := steps[m[2]]; twice {
			return nil, fmt.Errorf("step %s is shown twice", m[2])
		}
		steps[m[2]] = strings.ReplaceAll("\n"+m[3], "\n"+m[1], "\n")[1:]
	}
	return steps, nil
}

var (
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// Anchors returns the anchors of the headings in a Markdown text, as GitHub
// generates them. Duplicate headings share one anchor.
func Anchors(text string) map[string]bool {
	anchors := make(map[string]bool)
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		slug := dropped.ReplaceAllString(strings.ToLower(m[1]), "")
		anchors[strings.ReplaceAll(slug, " ", "-")] = true
	}
	return anchors
}

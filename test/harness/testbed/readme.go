// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// readme are the files that the README documents, by name: its fenced blocks
// after a line <!-- file: NAME -->.
type readme map[string]string

var documented = regexp.MustCompile("(?ms)^<!-- file: (\\S+) -->\n```\\w*\n(.*?)^```$")

func readReadme(path string) (readme, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	blocks := make(readme)
	for _, m := range documented.FindAllStringSubmatch(string(text), -1) {
		if _, twice := blocks[m[1]]; twice {
			return nil, fmt.Errorf("%s documents %s twice", path, m[1])
		}
		blocks[m[1]] = m[2]
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("%s documents no file", path)
	}
	return blocks, nil
}

// Documented is a file as the README documents it, with substitutions: pairs of
// what stands there and what to put in its place, as for [strings.NewReplacer].
// Each must stand there exactly once, so that a README that changes is noticed.
func (b *Bed) Documented(name string, substitutions ...string) string {
	b.t.Helper()
	text, ok := b.readme[name]
	if !ok {
		b.t.Fatalf("the README documents no %s", name)
	}
	for i := 0; i < len(substitutions); i += 2 {
		if n := strings.Count(text, substitutions[i]); n != 1 {
			b.t.Fatalf("the README's %s holds %q %d times, want once", name, substitutions[i], n)
		}
	}
	return strings.NewReplacer(substitutions...).Replace(text)
}

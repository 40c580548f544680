// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// width is the longest line that is printed, where words allow it.
const width = 80

// paragraph writes text in lines of at most width, each after indent. A word that
// is longer has a line of its own.
func paragraph(b *strings.Builder, indent, text string) {
	line := indent
	for word := range strings.FieldsSeq(text) {
		if line != indent && len(line)+len(word) > width {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = indent
		}
		line += word + " "
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

// hanging writes a paragraph whose first line begins with first, and the others
// with as many blanks.
func hanging(b *strings.Builder, first, text string) {
	var p strings.Builder
	paragraph(&p, strings.Repeat(" ", len(first)), text)
	b.WriteString(first + p.String()[len(first):])
}

// sentence makes a sentence's beginning of an error's.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

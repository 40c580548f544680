// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// screen prints the story.
type screen struct {
	out     io.Writer
	colours bool
}

// newScreen uses colours on a terminal, unless NO_COLOR says no
// (https://no-color.org).
func newScreen(f *os.File) *screen {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &screen{out: f, colours: err == nil && os.Getenv("NO_COLOR") == ""}
}

// The colours used, as SGR parameters.
const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
	cyan  = "36"
)

func (s *screen) in(colour, text string) string {
	if !s.colours {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (s *screen) print(lines ...string) {
	fmt.Fprintln(s.out, strings.Join(lines, "\n"))
}

func (s *screen) title(title string, facts ...string) {
	s.print("", s.in(bold, title))
	for _, fact := range facts {
		s.print("  " + s.in(dim, fact))
	}
}

func (s *screen) chapter(number int, title string) {
	s.print("", s.in(cyan, fmt.Sprintf("▸ %d", number))+"  "+s.in(bold, title))
}

// labelWidth is the column in which facts begin, below their chapter.
const labelWidth = 16

// fact prints what was seen: a label and text, which may have several lines.
func (s *screen) fact(label, format string, args ...any) {
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	for line := range strings.Lines(text) {
		s.print("     " + s.in(dim, pad(label, labelWidth)) + strings.TrimSuffix(line, "\n"))
		label = ""
	}
}

func (s *screen) broken(err error) {
	s.print("     " + s.in(red, "✗ "+err.Error()))
}

// finding is one line of the table at the end.
type finding struct {
	ok   bool
	what string
	got  string
}

func allTrue(findings []finding) bool {
	for _, f := range findings {
		if !f.ok {
			return false
		}
	}
	return true
}

func (s *screen) table(findings []finding) {
	width := 0
	for _, f := range findings {
		width = max(width, utf8.RuneCountInString(f.what))
	}
	s.print("", s.in(bold, "Summary"))
	for _, f := range findings {
		mark, colour := "✓", green
		if !f.ok {
			mark, colour = "✗", red
		}
		s.print("  " + s.in(colour, mark) + " " + pad(f.what, width+2) + f.got)
	}
}

func (s *screen) end(good bool, text string) {
	colour := red
	if good {
		colour = green
	}
	s.print("", s.in(colour, text), "")
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// mood is what the color of a word expresses.
type mood string

// The moods, as a terminal's colors (ECMA-48, Select Graphic Rendition).
const (
	good     mood = "32" // green
	doubtful mood = "33" // yellow
	bad      mood = "31" // red
	neutral  mood = ""
)

// painter colors s, or returns it unchanged if the output is not a terminal.
type painter func(m mood, s string) string

// painterFor returns a painter that colors if w is a terminal, unless NO_COLOR is set
// (no-color.org) or TERM is dumb.
func painterFor(w io.Writer) painter {
	if _, ok := terminal(w); ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		return colored
	}
	return plainly
}

func plainly(_ mood, s string) string { return s }

func colored(m mood, s string) string {
	if m == neutral {
		return s
	}
	return "\x1b[" + string(m) + "m" + s + "\x1b[0m"
}

// columns returns the width of the terminal w; 0 if it is none, or if it does not tell.
func columns(w io.Writer) int {
	f, ok := terminal(w)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// terminal returns w as a file, if it is a terminal.
func terminal(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

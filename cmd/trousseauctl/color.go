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

// painter colors text, or returns it unchanged if the output is not a terminal.
type painter func(m mood, text string) string

// painterFor returns a painter that colors if w is a terminal, unless NO_COLOR is set
// (no-color.org) or TERM is dumb.
func painterFor(w io.Writer) painter {
	if _, ok := terminal(w); ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		return colored
	}
	return plainly
}

func plainly(_ mood, text string) string { return text }

func colored(m mood, text string) string {
	if m == neutral {
		return text
	}
	return "\x1b[" + string(m) + "m" + text + "\x1b[0m"
}

// terminal returns w as a file, if it is a terminal.
func terminal(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

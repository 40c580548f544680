// SPDX-License-Identifier: Apache-2.0

// Package text writes words, numbers and durations for a terminal. Its functions
// do no I/O and are safe for concurrent use.
package text

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// Count returns n and the noun, with an s unless n is 1: "1 object", "1,200 objects".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return Number(n) + " " + noun + "s"
}

// Number writes 1234567 as 1,234,567. n must not be negative.
func Number(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Capital returns s with its first letter in upper case, to begin a sentence.
func Capital(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	if size == 0 {
		return s
	}
	return string(unicode.ToUpper(first)) + s[size:]
}

// Age returns a duration in its largest unit: 12d, 35h, 4m, 9s. Less than a second,
// or a negative duration, which means that two clocks differ, is 0s.
func Age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Printable replaces what does not print, such as a line break or an escape
// sequence, by blanks. A text from another machine must not control the terminal.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

// Errno returns the operating system's error within err, without the path or the
// address that it is about, or err itself if there is none.
func Errno(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// Width is the longest line that [Paragraph] writes, in bytes, where words allow it.
const Width = 80

// Paragraph writes s in lines of at most [Width], each after indent. A word that
// is longer has a line of its own.
func Paragraph(b *strings.Builder, indent, s string) {
	line := indent
	for word := range strings.FieldsSeq(s) {
		if line != indent && len(line)+len(word) > Width {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = indent
		}
		line += word + " "
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

// Hanging writes a paragraph whose first line begins with first. The other lines
// are indented by as many blanks.
func Hanging(b *strings.Builder, first, s string) {
	var p strings.Builder
	Paragraph(&p, strings.Repeat(" ", len(first)), s)
	b.WriteString(first + p.String()[len(first):])
}

// SPDX-License-Identifier: Apache-2.0

// Package text writes words, numbers and durations, and lays out paragraphs and tables
// for the width of a terminal. Its functions do no I/O and are safe for concurrent use.
package text

import (
	"errors"
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

// Are returns Count with its verb: "1 object is", "2 objects are".
func Are(n int, noun string) string {
	if n == 1 {
		return Count(n, noun) + " is"
	}
	return Count(n, noun) + " are"
}

// List joins names by commas. After the first twelve it says how many more there are.
func List(names []string) string {
	const most = 12
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " and " + Number(len(names)-most) + " more"
	}
	return strings.Join(names, ", ")
}

// Age returns a duration in its largest unit of which there are two, rounded down:
// 12d, 35h, 90m, 9s. Less than a second, or a negative duration, which means that two
// clocks differ, is 0s.
func Age(d time.Duration) string {
	n, unit := largest(d)
	return strconv.Itoa(n) + unit[:1]
}

// Span is Age in words: 12 days, 35 hours.
func Span(d time.Duration) string {
	return Count(largest(d))
}

func largest(d time.Duration) (n int, unit string) {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return int(d / day), "day"
	case d >= 2*time.Hour:
		return int(d / time.Hour), "hour"
	case d >= 2*time.Minute:
		return int(d / time.Minute), "minute"
	}
	return int(max(d, 0) / time.Second), "second"
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

// Cut makes one line of s. If it is longer than width, at least 1, it ends with …
func Cut(s string, width int) string {
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
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

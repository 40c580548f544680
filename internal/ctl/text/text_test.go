// SPDX-License-Identifier: Apache-2.0

package text_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

func TestWords(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{text.Count(0, "object"), "0 objects"},
		{text.Count(1, "object"), "1 object"},
		{text.Count(2, "object"), "2 objects"},
		{text.Count(1200, "object"), "1,200 objects"},
		{text.Number(0), "0"},
		{text.Number(999), "999"},
		{text.Number(1000), "1,000"},
		{text.Number(1234567), "1,234,567"},
		{text.Capital(""), ""},
		{text.Capital("a reason"), "A reason"},
		{text.Capital("über"), "Über"},
		{text.Capital("7 objects"), "7 objects"},
		{text.Printable("plain, ünïcode"), "plain, ünïcode"},
		{text.Printable("a\x1b[2Jb\nc\td"), "a [2Jb c d"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 59 * time.Second: "59s", time.Minute: "1m", 59*time.Minute + 59*time.Second: "59m",
		time.Hour: "1h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 400 * 24 * time.Hour: "400d",
	} {
		if got := text.Age(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}

func TestErrno(t *testing.T) {
	_, err := os.Open("/none/of/this")
	if got := text.Errno(fmt.Errorf("reading: %w", err)); got.Error() != syscall.ENOENT.Error() || !errors.Is(got, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", got, syscall.ENOENT)
	}
	if other := errors.New("other"); !errors.Is(text.Errno(other), other) {
		t.Errorf("got %v, want %v", text.Errno(other), other)
	}
}

func TestParagraph(t *testing.T) {
	long := strings.Repeat("x", 90)
	for _, c := range []struct{ first, s, want string }{
		{"", "", "\n"},
		{"", "one  two\nthree", "one two three\n"},
		{"  ", strings.Repeat("1234567 ", 11), "  " + strings.TrimSpace(strings.Repeat("1234567 ", 9)) + "\n  1234567 1234567\n"},
		{"", "a " + long + " b", "a\n" + long + "\nb\n"},
	} {
		var b strings.Builder
		if text.Paragraph(&b, c.first, c.s); b.String() != c.want {
			t.Errorf("Paragraph(%q, %q): got %q, want %q", c.first, c.s, b.String(), c.want)
		}
	}
	var b strings.Builder
	text.Hanging(&b, "key: ", strings.Repeat("1234567 ", 10))
	if want := "key: " + strings.TrimSpace(strings.Repeat("1234567 ", 9)) + "\n     1234567\n"; b.String() != want {
		t.Errorf("Hanging: got %q, want %q", b.String(), want)
	}
}

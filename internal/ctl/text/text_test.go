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
		{text.Are(1, "object"), "1 object is"},
		{text.Are(1200, "object"), "1,200 objects are"},
		{text.List([]string{"a", "b"}), "a, b"},
		{text.List(strings.Split("abcdefghijklmn", "")), "a, b, c, d, e, f, g, h, i, j, k, l and 2 more"},
		{text.Cut("two\nlines", 9), "two lines"},
		{text.Cut("über alles", 5), "über…"},
		{text.Span(-time.Hour), "0 seconds"},
		{text.Span(time.Second), "1 second"},
		{text.Span(90 * time.Minute), "90 minutes"},
		{text.Span(49 * time.Hour), "2 days"},
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
		-time.Hour: "0s", 0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119*time.Minute + 59*time.Second: "119m",
		2 * time.Hour: "2h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 400 * 24 * time.Hour: "400d",
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

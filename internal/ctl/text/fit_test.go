// SPDX-License-Identifier: Apache-2.0

package text_test

import (
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

func TestFitParagraph(t *testing.T) {
	long := strings.Repeat("x", 90)
	sevens := func(n int) string { return strings.TrimSpace(strings.Repeat("1234567 ", n)) }
	for name, c := range map[string]struct {
		columns        int
		first, s, want string
	}{
		"empty":                          {0, "", "", ""},
		"blanks become one":              {0, "", "one  two\nthree", "one two three"},
		"elsewhere":                      {0, "  ", sevens(11), "  " + sevens(9) + "\n  " + sevens(2)},
		"at 60 columns":                  {60, "key: ", sevens(8), "key: " + sevens(7) + "\n     " + sevens(1)},
		"wide lines are hard to read":    {200, "", sevens(20), sevens(15) + "\n" + sevens(5)},
		"a long word has its own line":   {60, "", "a " + long + " b", "a\n" + long + "\nb"},
		"colors have no width":           {30, "\x1b[31mFAIL\x1b[0m  ", "123456789 1234567 1234567 end", "\x1b[31mFAIL\x1b[0m  123456789 1234567\n      1234567 end"},
		"no room beside the first words": {30, "  a-name-that-is-long  ", sevens(4), "  a-name-that-is-long\n    " + sevens(3) + "\n    " + sevens(1)},
		"no room at all":                 {6, "  ", "ab cd", "  ab\n  cd"},
	} {
		var b strings.Builder
		text.Hanging(&b, c.first, c.s)
		if got := text.Fit(b.String(), c.columns); got != c.want+"\n" {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

func TestFitLine(t *testing.T) {
	var b strings.Builder
	text.Line(&b, "node: ", "a word  or "+strings.Repeat("two ", 30)+"three")
	if got := text.Fit(b.String(), 0); got != "node: a word  or "+strings.Repeat("two ", 30)+"three\n" {
		t.Errorf("elsewhere: got %q", got)
	}
	if got := text.Fit(b.String(), 30); !strings.HasPrefix(got, "node: a word or two two two\n      two two") {
		t.Errorf("at 30 columns: got %q", got)
	}
}

func TestFitTable(t *testing.T) {
	nodes := "NODE\tHEALTH\tKEY_ID\tTOKEN\n" +
		"10.0.0.1\t\x1b[32mhealthy\x1b[0m\t1f0c9a4e73b2\t31d, renewed\n" +
		"  a line below\n" +
		"10.0.0.2\tunreachable\t\t\n"
	for name, c := range map[string]struct {
		columns int
		s, want string
	}{
		"elsewhere a row is one line": {
			0, "  pass\tname  \t" + strings.Repeat("word ", 30) + "end\n",
			"  pass  name    " + strings.Repeat("word ", 30) + "end\n",
		},
		"wide enough": {
			49, nodes,
			"NODE      HEALTH       KEY_ID        TOKEN\n" +
				"10.0.0.1  \x1b[32mhealthy\x1b[0m      1f0c9a4e73b2  31d, renewed\n" +
				"  a line below\n" +
				"10.0.0.2  unreachable\n",
		},
		"cells are wrapped": {
			48, nodes,
			"NODE      HEALTH       KEY_ID        TOKEN\n" +
				"10.0.0.1  \x1b[32mhealthy\x1b[0m      1f0c9a4e73b2  31d,\n" +
				"                                     renewed\n" +
				"  a line below\n" +
				"10.0.0.2  unreachable\n",
		},
		"rows continue on the next line": {
			40, nodes,
			"NODE      HEALTH       KEY_ID\n" +
				"    TOKEN\n" +
				"10.0.0.1  \x1b[32mhealthy\x1b[0m      1f0c9a4e73b2\n" +
				"    31d, renewed\n" +
				"  a line below\n" +
				"10.0.0.2  unreachable\n",
		},
		"the last column is a text": {
			30, "  pass\tname\tone two three four five six\n",
			"  pass  name  one two three\n" +
				"              four five six\n",
		},
		"numbers keep their place": {30, "        5\trewritten\n       30\tdeleted during the run\n",
			"        5  rewritten\n       30  deleted during the\n           run\n"},
		"an empty line ends a table": {80, "a\tb\n\nlonger\tb\n", "a  b\n\nlonger  b\n"},
		"other lines stay":           {10, "vault token revoke -accessor 12345\n", "vault token revoke -accessor 12345\n"},
	} {
		if got := text.Fit(c.s, c.columns); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

// FuzzFit checks that no width loses a character other than blanks.
func FuzzFit(f *testing.F) {
	f.Add("NODE\tHEALTH\n10.0.0.1\t31d, renewed\n\nother\v text of some words\n", 20)
	f.Add("a\tb\tc\td\n", 1)
	f.Fuzz(func(t *testing.T, s string, columns int) {
		columns = max(columns%300, 0)
		got := text.Fit(s, columns)
		count := func(s string) int { return len(strings.Join(strings.Fields(s), "")) }
		if count(got) != count(s) {
			t.Errorf("at %d columns, %q became %q", columns, s, got)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func octal(mode fs.FileMode) string { return fmt.Sprintf("%#o", mode.Perm()) }

func joined(words []string) string { return strings.Join(words, ", ") }

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

const day = 24 * time.Hour

// span words a duration in its largest unit, rounded down.
func span(d time.Duration) string {
	switch {
	case d >= 2*day:
		return plural(int(d/day), "day")
	case d >= 2*time.Hour:
		return plural(int(d/time.Hour), "hour")
	case d >= 2*time.Minute:
		return plural(int(d/time.Minute), "minute")
	}
	return plural(int(d/time.Second), "second")
}

// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"io/fs"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

func octal(mode fs.FileMode) string { return fmt.Sprintf("%#o", mode.Perm()) }

const day = 24 * time.Hour

// span returns a duration in its largest unit, in words and rounded down.
func span(d time.Duration) string {
	switch {
	case d >= 2*day:
		return text.Count(int(d/day), "day")
	case d >= 2*time.Hour:
		return text.Count(int(d/time.Hour), "hour")
	case d >= 2*time.Minute:
		return text.Count(int(d/time.Minute), "minute")
	}
	return text.Count(int(d/time.Second), "second")
}

// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// ParseRate reads how many patches are sent, in one second, minute or hour, such
// as 50/s, 600/m or 20000/h. A number alone is in one second.
func ParseRate(text string) (rate.Limit, error) {
	number, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseFloat(number, 64)
	per, known := map[string]time.Duration{"": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	if err != nil || !known || !(n > 0) || math.IsInf(n, 0) || strings.HasSuffix(text, "/") {
		return 0, fmt.Errorf("%q is no rate such as 50/s, 600/m or 20000/h", text)
	}
	return rate.Limit(n / per.Seconds()), nil
}

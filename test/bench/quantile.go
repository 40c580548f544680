// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"slices"
)

// quantile returns the q-quantile of values, which it sorts; zero if there are none.
func quantile[T cmp.Ordered](values []T, q float64) T {
	if len(values) == 0 {
		var zero T
		return zero
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(q*float64(len(values))))]
}

func median[T cmp.Ordered](values []T) T { return quantile(values, 0.5) }

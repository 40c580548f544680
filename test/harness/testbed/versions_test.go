// SPDX-License-Identifier: Apache-2.0

package testbed

import "testing"

func TestHoldsToken(t *testing.T) {
	for text, want := range map[string]bool{
		"token: hvs.CAESIJ1234567890":     true,
		"token: hvb.AAAA":                 true,
		`"s.Tg4pUfXl9J3zYb0Q2rWc1aVd"`:    true,
		"the API servers.":                false,
		"kubernetes.default.svc":          false,
		"is.ThisIsSomeLongIdentifierName": false,
		"s.short":                         false,
	} {
		if got := HoldsToken(text); got != want {
			t.Errorf("%q: %t, want %t", text, got, want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"regexp"
	"strconv"
)

// maxShown is the longest value, in bytes, that a problem repeats.
const maxShown = 256

// show returns a value in quotes for the text of a problem. It is meant for names, addresses and file names, but
// tokens get pasted into the wrong field, so what could hold one is not shown.
func show(value string) string {
	switch {
	case tokenInside.MatchString(value):
		return "the value (not shown, it could be a token)"
	case len(value) > maxShown:
		return fmt.Sprintf("the value (not shown, it has %d bytes)", len(value))
	}
	return strconv.Quote(value)
}

// Vault's tokens begin with hvs., hvb. or hvr.; those of OpenBao, and of Vault before 1.10, with s., b. or r.
var (
	// tokenInside matches generously: a value that is needlessly hidden does no harm.
	tokenInside = regexp.MustCompile(`(?i)hv[sbr]\.|\b[sbr]\.[a-z0-9]{20}`)
	// wholeToken matches narrowly: it must not refuse a name that somebody gave to a key.
	wholeToken = regexp.MustCompile(`^(hv[sbr]\.[\w-]{20,}|[sbr]\.[A-Za-z0-9]{24})$`)
)

// isToken reports whether value can hardly be anything but a Vault token.
func isToken(value string) bool { return wholeToken.MatchString(value) }

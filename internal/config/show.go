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

// Vault's tokens begin with hvs., hvb. or hvr.; those of OpenBao, and of Vault before 1.10, with s., b. or r. A JWT is
// a JSON object in base64, and then a dot. A secret ID is a UUID, as are names of directories.
var (
	// tokenInside matches generously: a value that is needlessly hidden does no harm.
	tokenInside = regexp.MustCompile(`(?i:hv[sbr]\.|\b[sbr]\.[a-z0-9]{20})|\beyJ[\w-]{16,}\.|` +
		`(?i:(^|[^/])\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})`)
	// The others match narrowly: they must not refuse a name that somebody gave to a key.
	wholeToken = regexp.MustCompile(`^(hv[sbr]\.[\w-]{20,}|[sbr]\.[A-Za-z0-9]{24})$`)
	wholeJWT   = regexp.MustCompile(`^eyJ[\w-]{16,}\.eyJ[\w-]+\.[\w-]*$`)
)

// elsewhere says where value belongs when it can hardly be anything but a token; "" when it may be a name.
func elsewhere(value string) string {
	switch {
	case wholeToken.MatchString(value):
		return "belongs in vault.token, not here"
	case wholeJWT.MatchString(value):
		return "belongs in a file that tokenFile names, not here"
	}
	return ""
}

// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"
	"slices"
	"strings"
)

// text returns a value of an answer as text; "" for nil.
func text(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// yes reports whether a value of an answer is true.
func yes(v any) bool { return text(v) == "true" }

// texts returns a list of an answer, sorted.
func texts(v any) []string {
	var all []string
	list, _ := v.([]any)
	for _, item := range list {
		all = append(all, text(item))
	}
	slices.Sort(all)
	return all
}

// quote quotes s for a shell, if necessary.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%_+=:,./-", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

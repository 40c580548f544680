// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"cmp"
	"fmt"
	"strings"
	"unicode"

	"google.golang.org/grpc/status"
)

// outcome is what a check has come to, whatever its level.
type outcome struct {
	result Result // Pass, Fail or Skip
	detail string
	advice string
}

// pass is for a rule that is kept.
func pass(format string, args ...any) outcome {
	return outcome{result: Pass, detail: fmt.Sprintf(format, args...)}
}

// broken is for a rule that is not kept: what to do, and what was seen. Without
// advice, only the plugin can tell.
func broken(advice, format string, args ...any) outcome {
	return outcome{result: Fail, detail: fmt.Sprintf(format, args...), advice: cmp.Or(advice, "Read the plugin's own log.")}
}

// skip is for a rule that cannot be judged, or does not apply.
func skip(format string, args ...any) outcome {
	return outcome{result: Skip, detail: fmt.Sprintf(format, args...)}
}

// said is a plugin's error, for a detail.
func said(err error) string {
	st := status.Convert(err)
	if st.Message() == "" {
		return st.Code().String()
	}
	return fmt.Sprintf("%s: %s", st.Code(), shortened(st.Message()))
}

// shortened is a text of the plugin's, of a length that fits a line or two, and
// without anything that would move a terminal's cursor.
func shortened(text string) string {
	const longest = 160
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if runes := []rune(text); len(runes) > longest {
		return string(runes[:longest]) + "…"
	}
	return text
}

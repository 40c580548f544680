// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"cmp"
	"fmt"
	"strings"

	"google.golang.org/grpc/status"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// outcome is the result of a check, before its level is considered.
type outcome struct {
	result Result // Pass, Fail or Skip
	detail string
	advice string
}

// pass means that the plugin follows the rule.
func pass(format string, args ...any) outcome {
	return outcome{result: Pass, detail: fmt.Sprintf(format, args...)}
}

// broken means that the plugin breaks the rule: what to do, and what was seen. The
// default advice is to read the plugin's log.
func broken(advice, format string, args ...any) outcome {
	return outcome{result: Fail, detail: fmt.Sprintf(format, args...), advice: cmp.Or(advice, "Read the plugin's log.")}
}

// skip means that the rule was not checked, or does not apply.
func skip(format string, args ...any) outcome {
	return outcome{result: Skip, detail: fmt.Sprintf(format, args...)}
}

// said returns a plugin's error, for a detail.
func said(err error) string {
	st := status.Convert(err)
	if st.Message() == "" {
		return st.Code().String()
	}
	return fmt.Sprintf("%s: %s", st.Code(), shortened(st.Message()))
}

// shortened shortens a text of the plugin to a line or two, and replaces what does not
// print.
func shortened(s string) string {
	const longest = 160
	s = strings.Join(strings.Fields(text.Printable(s)), " ")
	if runes := []rune(s); len(runes) > longest {
		return string(runes[:longest]) + "…"
	}
	return s
}

// SPDX-License-Identifier: Apache-2.0

package testbed

import "strings"

// Documented returns a file as shown in README.md or docs/, after substitutions:
// pairs of old and new text, as for [strings.NewReplacer]. Each old text must occur
// exactly once, so that the test notices a changed page.
func (b *Bed) Documented(name string, substitutions ...string) string {
	b.t.Helper()
	text, ok := b.documented[name]
	if !ok {
		b.t.Fatalf("no page shows %s", name)
	}
	for i := 0; i < len(substitutions); i += 2 {
		if n := strings.Count(text, substitutions[i]); n != 1 {
			b.t.Fatalf("the documented %s holds %q %d times, want once", name, substitutions[i], n)
		}
	}
	return strings.NewReplacer(substitutions...).Replace(text)
}

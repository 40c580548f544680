// SPDX-License-Identifier: Apache-2.0

package testbed

import "strings"

// Documented is a file as README.md or a page of docs/ shows it, with
// substitutions: pairs of what stands there and what to put in its place, as for
// [strings.NewReplacer]. Each must stand there exactly once, so that a page that
// changes is noticed.
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

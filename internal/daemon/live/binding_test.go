// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/seed"
)

const mark = "associated-data.trousseau.io"

// The variants of binding in a configuration.
const (
	unbound  = ""
	boundTo1 = "  associatedData: cluster-1\n"
	boundTo2 = "  associatedData: cluster-2\n"
	requires = "  associatedData: cluster-1\n  requireAssociatedData: true\n"
)

// TestAssociatedData decrypts ciphertexts of one configuration, with the mark
// unchanged or changed, in a process with the same or another configuration.
func TestAssociatedData(t *testing.T) {
	asItWas := func(*seed.Wrapped) {}
	marked := func(w *seed.Wrapped) { w.Annotations = map[string][]byte{mark: []byte("v1")} }
	unmarked := func(w *seed.Wrapped) { w.Annotations = nil }
	other := func(w *seed.Wrapped) { w.Annotations = map[string][]byte{mark: []byte("cluster-2")} }
	tests := []struct {
		name        string
		made, read  string
		tamper      func(*seed.Wrapped)
		class       fault.Class
		wantProblem string
	}{
		{"neither", unbound, unbound, asItWas, "", ""},
		{"the same", boundTo1, boundTo1, asItWas, "", ""},
		{"the mark's value does not count", boundTo1, boundTo1, other, "", ""},
		{"from before it was set", unbound, boundTo1, asItWas, "", ""},
		{"another", boundTo1, boundTo2, asItWas, fault.Invalid, "not made by this key"},
		{"no longer set", boundTo1, unbound, asItWas, fault.Invalid, "associatedData is not set"},
		{"mark removed", boundTo1, boundTo1, unmarked, fault.Invalid, "not made by this key"},
		{"mark added", unbound, boundTo1, marked, fault.Invalid, "not made by this key"},
		{"required and there", boundTo1, requires, asItWas, "", ""},
		{"required and not there", unbound, requires, asItWas, fault.Invalid, "requireAssociatedData is set"},
		{"required and pretended", unbound, requires, marked, fault.Invalid, "not made by this key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(made *bench) {
				made.load(settings{extra: tt.made})
				ctx, cancel := made.request()
				defer cancel()
				wrapped, err := made.Encrypt(ctx, []byte("seed"))
				if err != nil {
					t.Fatal(err)
				}
				if _, got := wrapped.Annotations[mark]; got != (tt.made != unbound) {
					t.Errorf("annotations = %v", wrapped.Annotations)
				}
				for _, value := range wrapped.Annotations {
					if strings.Contains(string(value), "cluster") {
						t.Error("the annotation holds the associated data")
					}
				}
				tt.tamper(&wrapped)
				made.restart()
				made.load(settings{extra: tt.read})
				plaintext, err := made.Decrypt(ctx, wrapped)
				if fault.ClassOf(err) != tt.class || err == nil && string(plaintext) != "seed" ||
					err != nil && !strings.Contains(err.Error(), tt.wantProblem) {
					t.Errorf("Decrypt = %q, %v; want class %q, %q", plaintext, err, tt.class, tt.wantProblem)
				}
			})
		})
	}
}

// TestBindingIsNotChanged checks that a reload is refused if it would make data
// unreadable.
func TestBindingIsNotChanged(t *testing.T) {
	tests := []struct {
		name, from, to, refused string
	}{
		{"set", unbound, boundTo1, ""},
		{"set and required at once", unbound, requires, "no data is bound yet"},
		{"required later", boundTo1, requires, ""},
		{"no longer required", requires, boundTo1, ""},
		{"changed", boundTo1, boundTo2, "data is bound to the current value"},
		{"removed", boundTo1, unbound, "data is bound to the current value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.load(settings{extra: tt.from})
				b.load(settings{extra: tt.to})
				times, problem := b.logged(notUsed)
				if refused := times > 0; refused != (tt.refused != "") || !strings.Contains(problem, tt.refused) {
					t.Errorf("logged %d times: %q, want %q", times, problem, tt.refused)
				}
				b.roundTrip()
			})
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package seed_test

import (
	"bytes"
	"testing"

	"github.com/trousseau-io/trousseau/internal/seed"
)

func TestIdentity(t *testing.T) {
	notes := func(pairs ...string) map[string][]byte {
		m := make(map[string][]byte)
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = []byte(pairs[i+1])
		}
		return m
	}
	same := []seed.Wrapped{
		{KeyID: "k", Ciphertext: []byte("c"), Annotations: notes("a", "1", "b", "2")},
		{KeyID: "k", Ciphertext: []byte("c"), Annotations: notes("b", "2", "a", "1")},
	}
	if a, b := same[0].Identity(), same[1].Identity(); a != b {
		t.Errorf("equal seeds: %q and %q", a, b)
	}
	different := []seed.Wrapped{
		same[0],
		{KeyID: "k", Ciphertext: []byte("c")},
		{KeyID: "kc"},
		{Ciphertext: []byte("kc")},
		{KeyID: "k", Ciphertext: []byte("c"), Annotations: notes("a", "1")},
		{KeyID: "k", Ciphertext: []byte("c"), Annotations: notes("a", "2")},
		{KeyID: "k", Ciphertext: []byte("c"), Annotations: notes("a1", "")},
		{KeyID: "k", Ciphertext: []byte("c"), Annotations: notes("a", "1b2")},
		{KeyID: "k", Ciphertext: []byte("c1:a")},
	}
	seen := make(map[string]int)
	for i, w := range different {
		if j, twice := seen[w.Identity()]; twice {
			t.Errorf("seeds %d and %d are different but both %q", j, i, w.Identity())
		}
		seen[w.Identity()] = i
	}
}

// FuzzOfV1 checks that a stored DEK either stays as it is, or becomes a transit
// ciphertext.
func FuzzOfV1(f *testing.F) {
	f.Add([]byte("vault:v1:AAAA"))
	f.Add([]byte("vault:-:dmF1bHQ6djE6QUFBQQ==\n")) // vault:v1:AAAA
	f.Add([]byte("awskms:-:AQICAHg=\nvault:-:dmF1bHQ6djE6QUFBQQ==\n"))
	f.Add([]byte("vault:-:AQICAHg=\n"))
	f.Add([]byte(":-:\n\n:-:"))
	f.Fuzz(func(t *testing.T, stored []byte) {
		w := seed.OfV1(bytes.Clone(stored))
		if w.KeyID != "" || w.Annotations != nil || !bytes.Equal(w.Ciphertext, stored) && !bytes.HasPrefix(w.Ciphertext, []byte("vault:v")) {
			t.Errorf("%q becomes %+v", stored, w)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trousseau-io/trousseau/internal/seed"
)

// forgery is a request for Decrypt that does not come from Encrypt.
type forgery struct {
	what    string
	wrapped seed.Wrapped
}

// verdicts are the plugin's answers to forgeries, by what they are.
type verdicts struct {
	refused map[string]error
	same    []string // decrypted to the plaintext of what was forged
	other   []string // decrypted to something else
	late    []string // not answered in time
}

func judge(ctx context.Context, c *caller, plaintext []byte, forgeries []forgery) verdicts {
	v := verdicts{refused: make(map[string]error)}
	for _, f := range forgeries {
		got, err := c.decrypt(ctx, f.wrapped)
		switch {
		case status.Code(err) == codes.DeadlineExceeded:
			v.late = append(v.late, f.what)
		case err != nil:
			v.refused[f.what] = err
		case string(got) == string(plaintext):
			v.same = append(v.same, f.what)
		default:
			v.other = append(v.other, f.what)
		}
	}
	return v
}

// mustRefuse is the outcome for forgeries that the plugin must refuse. It may decrypt
// at most tolerated of them to the original plaintext. It must work afterwards.
func (v verdicts) mustRefuse(ctx context.Context, c *caller, tolerated int, advice string) outcome {
	switch {
	case len(v.other) > 0:
		return broken(advice, "decrypted to other bytes than were encrypted: %s", strings.Join(v.other, ", "))
	case len(v.same) > tolerated:
		return broken(advice, "decrypted without an error: %s", strings.Join(v.same, ", "))
	case len(v.late) > 0:
		return broken("Refuse it at once.", "not answered within %s: %s", c.subject.timeout, strings.Join(v.late, ", "))
	}
	if err := c.roundTrip(ctx); err != nil {
		return broken(adviceIsolate, "a valid request after it fails: %v", err)
	}
	if len(v.same) > 0 {
		return pass("%d refused, %d decrypted to the same plaintext", len(v.refused), len(v.same))
	}
	return pass("%d refused", len(v.refused))
}

// tampered returns w with various changes to its ciphertext.
func tampered(w seed.Wrapped) []forgery {
	with := func(what string, ciphertext []byte) forgery {
		return forgery{what, seed.Wrapped{KeyID: w.KeyID, Ciphertext: ciphertext, Annotations: w.Annotations}}
	}
	all := []forgery{
		with("one byte less", w.Ciphertext[:len(w.Ciphertext)-1]),
		with("one byte more", append(slices.Clone(w.Ciphertext), 'A')),
		with("its first half", w.Ciphertext[:len(w.Ciphertext)/2]),
	}
	size := len(w.Ciphertext)
	for _, change := range []struct {
		what string
		at   int
	}{
		{"another first byte", 0}, {"another tenth byte", 9}, {"another twentieth byte", 19}, {"another middle byte", size / 2},
		{"another tenth last byte", size - 10}, {"another third last byte", size - 3}, {"another last byte", size - 1},
	} {
		if change.at < 0 || change.at >= size {
			continue
		}
		changed := slices.Clone(w.Ciphertext)
		changed[change.at] ^= 1
		all = append(all, with(change.what, changed))
	}
	return all
}

// keyIDs returns w under other key_ids.
func keyIDs(w seed.Wrapped, ids map[string]string) []forgery {
	var all []forgery
	for _, what := range slices.Sorted(maps.Keys(ids)) {
		all = append(all, forgery{what, seed.Wrapped{KeyID: ids[what], Ciphertext: w.Ciphertext, Annotations: w.Annotations}})
	}
	return all
}

// altered returns a key_id with another last character of the same kind, so that it
// still parses.
func altered(keyID string) string {
	rest, last := keyID[:len(keyID)-1], keyID[len(keyID)-1]
	switch {
	case last == '9', last == 'f', last == 'z', last == 'F', last == 'Z':
		last--
	case last >= 0x80: // part of a longer character
		return rest + "?"
	default:
		last++
	}
	return rest + string(rune(last))
}

// oversized returns w with each field in turn beyond its limit.
func oversized(w seed.Wrapped) []forgery {
	ciphertext, keyID, annotations := w, w, w
	ciphertext.Ciphertext = append(slices.Clone(w.Ciphertext), make([]byte, maxCiphertext)...)
	keyID.KeyID = w.KeyID + strings.Repeat("x", maxKeyID)
	annotations.Annotations = maps.Clone(w.Annotations)
	if annotations.Annotations == nil {
		annotations.Annotations = make(map[string][]byte)
	}
	annotations.Annotations["conformance.trousseau.io"] = make([]byte, maxAnnotations)
	return []forgery{
		{"a ciphertext of more than 1024 bytes", ciphertext},
		{"a key_id of more than 1024 bytes", keyID},
		{"annotations of more than 32768 bytes", annotations},
	}
}

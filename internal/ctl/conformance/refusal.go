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

func refusalChecks() []Check {
	return inGroup("refusal",
		must("refusal-ciphertext-tampered", "Decrypt of a changed ciphertext is an error, and never returns other bytes.",
			sourceDocs+"Decryption", sampled(checkTampered), roundTrips),
		must("refusal-ciphertext-foreign", "Decrypt of data that does not come from Encrypt is an error.",
			sourceDocs+"Decryption", sampled(checkForeign), roundTrips),
		must("refusal-ciphertext-empty", "Decrypt of an empty ciphertext is an error.",
			sourceEnvelope+"validateEncryptedDEKSource", sampled(checkEmptyCiphertext), roundTrips),
		must("refusal-key-id-unknown", "The key_id of another plugin is an error, even with a valid ciphertext.",
			sourceDocs+"Decryption", sampled(checkUnknownKeyID), roundTrips),
		must("refusal-key-id-altered", "A key_id with another last character is an error or is ignored, and never returns other bytes.",
			sourceDocs+"Decryption", sampled(checkAlteredKeyID), roundTrips),
		must("refusal-key-id-empty", "An empty key_id is an error, and does not mean the current key.",
			sourceEnvelope+"ValidateKeyID", sampled(checkEmptyKeyID), roundTrips),
		must("refusal-annotations-changed", "Changed annotations are an error or are ignored, and never return other bytes.",
			sourceEnvelope+"generateCacheKey: anyone who can write to etcd chooses them", sampled(checkChangedAnnotations), roundTrips),
		should("refusal-oversized", "Decrypt of data beyond kube-apiserver's limits is an error.",
			sourceEnvelope+"ValidateEncryptedObject", sampled(checkOversized), roundTrips),
		should("refusal-codes", "The gRPC code distinguishes a refusal from an outage: InvalidArgument or similar.",
			sourceClient+"recordMetricsInterceptor: the code is a label of kube-apiserver's metrics", sampled(checkCodes), roundTrips),
	)
}

func checkTampered(ctx context.Context, s *subject, plaintext []byte, w seed.Wrapped) outcome {
	// Base64 may have unused bits at its end.
	const tolerated = 2
	return judge(ctx, s.main, plaintext, tampered(w)).mustRefuse(ctx, s.main, tolerated,
		"Use authenticated encryption such as AES-GCM, and verify the whole ciphertext.")
}

func checkForeign(ctx context.Context, s *subject, plaintext []byte, w seed.Wrapped) outcome {
	with := func(what string, ciphertext []byte) forgery {
		return forgery{what, seed.Wrapped{KeyID: w.KeyID, Ciphertext: ciphertext, Annotations: w.Annotations}}
	}
	return judge(ctx, s.main, plaintext, []forgery{
		with("random bytes", s.newPlaintext(len(w.Ciphertext))),
		with("a seed that is not encrypted", s.newSeed()),
		with("a word", []byte("ciphertext")),
		with("one byte", []byte{0}),
	}).mustRefuse(ctx, s.main, 0, "Decrypt only data that the plugin has authenticated, and never return data unchanged.")
}

func checkEmptyCiphertext(ctx context.Context, s *subject, plaintext []byte, w seed.Wrapped) outcome {
	w.Ciphertext = nil
	return judge(ctx, s.main, plaintext, []forgery{{"an empty ciphertext", w}}).mustRefuse(ctx, s.main, 0, "Refuse it with InvalidArgument.")
}

const adviceKeyID = "Look up key_id among those that the plugin has announced, and refuse any other with InvalidArgument."

func checkUnknownKeyID(ctx context.Context, s *subject, plaintext []byte, w seed.Wrapped) outcome {
	return judge(ctx, s.main, plaintext, keyIDs(w, map[string]string{
		"an unrelated key_id":      "another-plugins-key",
		"the key_id with a suffix": w.KeyID + "-other",
		"the key_id with a prefix": "other-" + w.KeyID,
	})).mustRefuse(ctx, s.main, 0, adviceKeyID)
}

func checkAlteredKeyID(ctx context.Context, s *subject, plaintext []byte, w seed.Wrapped) outcome {
	if w.KeyID == "" {
		return skip("there is no key_id")
	}
	// An authentic ciphertext proves more than the spelling of its key_id. To refuse it
	// could lose data, such as that of a key imported elsewhere.
	const tolerated = 1
	return judge(ctx, s.main, plaintext, keyIDs(w, map[string]string{
		"the key_id with another last character": altered(w.KeyID),
	})).mustRefuse(ctx, s.main, tolerated, adviceKeyID)
}

func checkEmptyKeyID(ctx context.Context, s *subject, plaintext []byte, w seed.Wrapped) outcome {
	return judge(ctx, s.main, plaintext, keyIDs(w, map[string]string{"an empty key_id": ""})).mustRefuse(ctx, s.main, 0, adviceKeyID)
}

func checkChangedAnnotations(ctx context.Context, s *subject, plaintext []byte, w seed.Wrapped) outcome {
	with := func(what string, change func(map[string][]byte)) forgery {
		annotations := maps.Clone(w.Annotations)
		if annotations == nil {
			annotations = make(map[string][]byte)
		}
		change(annotations)
		return forgery{what, seed.Wrapped{KeyID: w.KeyID, Ciphertext: w.Ciphertext, Annotations: annotations}}
	}
	forgeries := []forgery{
		with("an additional annotation", func(a map[string][]byte) { a["conformance.trousseau.io"] = s.newSeed() }),
	}
	if len(w.Annotations) > 0 {
		forgeries = append(forgeries, with("no annotations", func(a map[string][]byte) { clear(a) }))
	}
	for key := range w.Annotations {
		forgeries = append(forgeries, with("another value of "+shortened(key), func(a map[string][]byte) { a[key] = s.newSeed() }))
	}
	return judge(ctx, s.main, plaintext, forgeries).mustRefuse(ctx, s.main, len(forgeries),
		"Authenticate the annotations that you use, and ignore the others.")
}

func checkOversized(ctx context.Context, s *subject, plaintext []byte, w seed.Wrapped) outcome {
	return judge(ctx, s.main, plaintext, oversized(w)).mustRefuse(ctx, s.main, 0, "Check the size of each field first, and refuse it with InvalidArgument.")
}

// blaming are the codes that blame the request.
var blaming = []codes.Code{
	codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.OutOfRange,
	codes.PermissionDenied, codes.DataLoss, codes.ResourceExhausted,
}

func checkCodes(ctx context.Context, s *subject, plaintext []byte, w seed.Wrapped) outcome {
	empty := w
	empty.Ciphertext = nil
	forgeries := slices.Concat(tampered(w)[:4], keyIDs(w, map[string]string{
		"an unknown key_id": "another-plugins-key", "an empty key_id": "",
	}), []forgery{{"an empty ciphertext", empty}}, oversized(w))
	v := judge(ctx, s.main, plaintext, forgeries)
	var wrong []string
	seen := make(map[string]bool)
	for _, what := range slices.Sorted(maps.Keys(v.refused)) {
		code := status.Code(v.refused[what])
		seen[code.String()] = true
		if !slices.Contains(blaming, code) {
			wrong = append(wrong, what+": "+code.String())
		}
	}
	if len(wrong) > 0 {
		return broken("Use InvalidArgument for data that can never be decrypted, and Unavailable, Internal and Unknown only for problems of the plugin.", "%s", strings.Join(wrong, ", "))
	}
	return pass("%s", strings.Join(slices.Sorted(maps.Keys(seen)), ", "))
}

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

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
	const group = "refusal"
	return []Check{
		{
			Name: "refusal-ciphertext-tampered", Group: group, Level: Must,
			Rule:   "Decrypt of a changed ciphertext is an error, and never returns other bytes.",
			Source: sourceDocs + "Decryption",
			needs:  []string{roundTrips}, run: checkTampered,
		},
		{
			Name: "refusal-ciphertext-foreign", Group: group, Level: Must,
			Rule:   "Decrypt of data that does not come from Encrypt is an error.",
			Source: sourceDocs + "Decryption",
			needs:  []string{roundTrips}, run: checkForeign,
		},
		{
			Name: "refusal-ciphertext-empty", Group: group, Level: Must,
			Rule:   "Decrypt of an empty ciphertext is an error.",
			Source: sourceEnvelope + "validateEncryptedDEKSource",
			needs:  []string{roundTrips}, run: checkEmptyCiphertext,
		},
		{
			Name: "refusal-key-id-unknown", Group: group, Level: Must,
			Rule:   "The key_id of another plugin is an error, even with a valid ciphertext.",
			Source: sourceDocs + "Decryption",
			needs:  []string{roundTrips}, run: checkUnknownKeyID,
		},
		{
			Name: "refusal-key-id-altered", Group: group, Level: Must,
			Rule:   "A key_id with another last character is an error or is ignored, and never returns other bytes.",
			Source: sourceDocs + "Decryption",
			needs:  []string{roundTrips}, run: checkAlteredKeyID,
		},
		{
			Name: "refusal-key-id-empty", Group: group, Level: Must,
			Rule:   "An empty key_id is an error, and does not mean the current key.",
			Source: sourceEnvelope + "ValidateKeyID",
			needs:  []string{roundTrips}, run: checkEmptyKeyID,
		},
		{
			Name: "refusal-annotations-changed", Group: group, Level: Must,
			Rule:   "Changed annotations are an error or are ignored, and never return other bytes.",
			Source: sourceEnvelope + "generateCacheKey: anyone who can write to etcd chooses them",
			needs:  []string{roundTrips}, run: checkChangedAnnotations,
		},
		{
			Name: "refusal-oversized", Group: group, Level: Should,
			Rule:   "Decrypt of data beyond kube-apiserver's limits is an error.",
			Source: sourceEnvelope + "ValidateEncryptedObject",
			needs:  []string{roundTrips}, run: checkOversized,
		},
		{
			Name: "refusal-codes", Group: group, Level: Should,
			Rule:   "The gRPC code distinguishes a refusal from an outage: InvalidArgument or similar.",
			Source: sourceClient + "recordMetricsInterceptor: the code is a label of kube-apiserver's metrics",
			needs:  []string{roundTrips}, run: checkCodes,
		},
	}
}

func checkTampered(ctx context.Context, s *subject) outcome {
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
	// Base64 may have unused bits at its end.
	const tolerated = 2
	return judge(ctx, s.main, plaintext, tampered(w)).mustRefuse(ctx, s.main, tolerated,
		"Use authenticated encryption such as AES-GCM, and verify the whole ciphertext.")
}

func checkForeign(ctx context.Context, s *subject) outcome {
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
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

func checkEmptyCiphertext(ctx context.Context, s *subject) outcome {
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
	w.Ciphertext = nil
	return judge(ctx, s.main, plaintext, []forgery{{"an empty ciphertext", w}}).mustRefuse(ctx, s.main, 0, "Refuse it with InvalidArgument.")
}

const adviceKeyID = "Look up key_id among those that the plugin has announced, and refuse any other with InvalidArgument."

func checkUnknownKeyID(ctx context.Context, s *subject) outcome {
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
	return judge(ctx, s.main, plaintext, keyIDs(w, map[string]string{
		"an unrelated key_id":      "another-plugins-key",
		"the key_id with a suffix": w.KeyID + "-other",
		"the key_id with a prefix": "other-" + w.KeyID,
	})).mustRefuse(ctx, s.main, 0, adviceKeyID)
}

func checkAlteredKeyID(ctx context.Context, s *subject) outcome {
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
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

func checkEmptyKeyID(ctx context.Context, s *subject) outcome {
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
	return judge(ctx, s.main, plaintext, keyIDs(w, map[string]string{"an empty key_id": ""})).mustRefuse(ctx, s.main, 0, adviceKeyID)
}

func checkChangedAnnotations(ctx context.Context, s *subject) outcome {
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
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

func checkOversized(ctx context.Context, s *subject) outcome {
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
	return judge(ctx, s.main, plaintext, oversized(w)).mustRefuse(ctx, s.main, 0, "Check the size of each field first, and refuse it with InvalidArgument.")
}

// blaming are the codes that blame the request.
var blaming = []codes.Code{
	codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.OutOfRange,
	codes.PermissionDenied, codes.DataLoss, codes.ResourceExhausted,
}

func checkCodes(ctx context.Context, s *subject) outcome {
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
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

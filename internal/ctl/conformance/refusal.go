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
			Rule:   "A ciphertext that was changed is an error, and never other bytes.",
			Source: sourceDocs + "Decryption",
			needs:  []string{roundTrips}, run: checkTampered,
		},
		{
			Name: "refusal-ciphertext-foreign", Group: group, Level: Must,
			Rule:   "What Encrypt never gave is an error.",
			Source: sourceDocs + "Decryption",
			needs:  []string{roundTrips}, run: checkForeign,
		},
		{
			Name: "refusal-ciphertext-empty", Group: group, Level: Must,
			Rule:   "Decrypt of nothing is an error.",
			Source: sourceEnvelope + "validateEncryptedDEKSource",
			needs:  []string{roundTrips}, run: checkEmptyCiphertext,
		},
		{
			Name: "refusal-key-id-unknown", Group: group, Level: Must,
			Rule:   "A key_id of another plugin's is an error, even if the ciphertext is ours.",
			Source: sourceDocs + "Decryption",
			needs:  []string{roundTrips}, run: checkUnknownKeyID,
		},
		{
			Name: "refusal-key-id-altered", Group: group, Level: Must,
			Rule:   "A key_id with another last character is an error or makes no difference, and never other bytes.",
			Source: sourceDocs + "Decryption",
			needs:  []string{roundTrips}, run: checkAlteredKeyID,
		},
		{
			Name: "refusal-key-id-empty", Group: group, Level: Must,
			Rule:   "No key_id is an error, and not the current key.",
			Source: sourceEnvelope + "ValidateKeyID",
			needs:  []string{roundTrips}, run: checkEmptyKeyID,
		},
		{
			Name: "refusal-annotations-changed", Group: group, Level: Must,
			Rule:   "Annotations that were changed make an error or no difference, and never other bytes.",
			Source: sourceEnvelope + "generateCacheKey: whoever writes to etcd chooses them",
			needs:  []string{roundTrips}, run: checkChangedAnnotations,
		},
		{
			Name: "refusal-oversized", Group: group, Level: Should,
			Rule:   "Decrypt of what is beyond kube-apiserver's limits is an error.",
			Source: sourceEnvelope + "ValidateEncryptedObject",
			needs:  []string{roundTrips}, run: checkOversized,
		},
		{
			Name: "refusal-codes", Group: group, Level: Should,
			Rule:   "The gRPC code of a refusal tells it from an outage: InvalidArgument or a like one.",
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
	// Base64 may have bits at its end that mean nothing.
	const tolerated = 2
	return judge(ctx, s.main, plaintext, tampered(w)).mustRefuse(ctx, s.main, tolerated,
		"Use authenticated encryption such as AES-GCM, and check all of it.")
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
	}).mustRefuse(ctx, s.main, 0, "Decrypt only what is authenticated as the plugin's own; there is nothing to pass through as it is.")
}

func checkEmptyCiphertext(ctx context.Context, s *subject) outcome {
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
	w.Ciphertext = nil
	return judge(ctx, s.main, plaintext, []forgery{{"an empty ciphertext", w}}).mustRefuse(ctx, s.main, 0, "Refuse it with InvalidArgument.")
}

const adviceKeyID = "Look key_id up among those that the plugin has announced, and refuse what is not there with InvalidArgument."

func checkUnknownKeyID(ctx context.Context, s *subject) outcome {
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
	return judge(ctx, s.main, plaintext, keyIDs(w, map[string]string{
		"a key_id that has nothing to do with it": "another-plugins-key",
		"the key_id with more behind it":          w.KeyID + "-other",
		"the key_id with more before it":          "other-" + w.KeyID,
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
	// That the ciphertext is authentic proves more than the spelling: to refuse it
	// could lose data, such as that of a key that was imported elsewhere.
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
		with("one annotation more", func(a map[string][]byte) { a["conformance.trousseau.io"] = s.newSeed() }),
	}
	if len(w.Annotations) > 0 {
		forgeries = append(forgeries, with("no annotations", func(a map[string][]byte) { clear(a) }))
	}
	for key := range w.Annotations {
		forgeries = append(forgeries, with("another value of "+shortened(key), func(a map[string][]byte) { a[key] = s.newSeed() }))
	}
	return judge(ctx, s.main, plaintext, forgeries).mustRefuse(ctx, s.main, len(forgeries),
		"Authenticate what annotations are used for, or ignore them.")
}

func checkOversized(ctx context.Context, s *subject) outcome {
	plaintext, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
	return judge(ctx, s.main, plaintext, oversized(w)).mustRefuse(ctx, s.main, 0, "Check the size of each field first, and refuse with InvalidArgument.")
}

// blaming are the codes that say that the request was at fault.
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
		return broken("Use InvalidArgument for what can never be decrypted, and Unavailable, Internal and Unknown only for trouble of the plugin's own.", "%s", strings.Join(wrong, ", "))
	}
	return pass("%s", strings.Join(slices.Sorted(maps.Keys(seen)), ", "))
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/seed"
)

func secretChecks() []Check {
	return []Check{{
		Name: "errors-hide-seed", Group: "secrets", Level: Must,
		Rule:   "No error contains a plaintext or half of one: errors reach kube-apiserver's clients and its log.",
		Source: sourceEnvelope + "TransformFromStorage; " + sourceProbe + "rotateDEKOnKeyIDChange",
		run:    checkErrors,
	}}
}

// checkErrors provokes errors, and looks for plaintexts in them and in the errors of
// all earlier checks.
func checkErrors(ctx context.Context, s *subject) outcome {
	provoke(ctx, s)
	errors, leaks := s.ledger.leaks()
	var found []string
	for _, method := range slices.Sorted(maps.Keys(leaks)) {
		found = append(found, method+" contains it "+leaks[method])
	}
	if len(found) > 0 {
		return broken("Say in errors what is wrong with a request, but never quote it.", "%s", strings.Join(found, ", "))
	}
	return pass("not in %d different errors", errors)
}

func provoke(ctx context.Context, s *subject) {
	// Letters, because any formatting preserves them.
	letters := func() []byte {
		text := []byte(base64.RawURLEncoding.EncodeToString(s.newSeed()))[:32]
		s.ledger.sent(text)
		return text
	}
	for _, times := range []int{1, 64, 2 << 10, 160 << 10} {
		plaintext := bytes.Repeat(letters(), times)
		_, _ = s.main.encrypt(ctx, plaintext)
	}
	for _, method := range []string{kmsapi.KeyManagementService_Encrypt_FullMethodName, "/v2.KeyManagementService/Conformance"} {
		cut := append(field(fieldPlaintext, letters()), fieldUID<<3|2, 100)
		_, _ = s.main.invoke(ctx, method, cut)
	}
	// A plugin may decrypt first, and then find an error.
	plaintext := letters()
	w, err := s.main.encrypt(ctx, plaintext)
	if err != nil {
		return
	}
	for _, f := range slices.Concat(tampered(w), keyIDs(w, map[string]string{"unknown": "another-plugins-key", "none": ""}), oversized(w)) {
		_, _ = s.main.decrypt(ctx, f.wrapped)
	}
	// A ciphertext that is a plaintext.
	_, _ = s.main.decrypt(ctx, seed.Wrapped{KeyID: w.KeyID, Ciphertext: letters(), Annotations: w.Annotations})
}

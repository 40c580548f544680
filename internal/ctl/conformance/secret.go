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
		Rule:   "No error shows a plaintext, or half of one: errors reach clients of kube-apiserver and its log.",
		Source: sourceEnvelope + "TransformFromStorage; " + sourceProbe + "rotateDEKOnKeyIDChange",
		run:    checkErrors,
	}}
}

// checkErrors provokes what errors it can and looks for plaintexts in those, and
// in all that other checks have met.
func checkErrors(ctx context.Context, s *subject) outcome {
	provoke(ctx, s)
	errors, leaks := s.ledger.leaks()
	var found []string
	for _, method := range slices.Sorted(maps.Keys(leaks)) {
		found = append(found, method+" shows it "+leaks[method])
	}
	if len(found) > 0 {
		return broken("Say in errors what is wrong with a request, and never what is in it.", "%s", strings.Join(found, ", "))
	}
	return pass("not in %d different errors", errors)
}

func provoke(ctx context.Context, s *subject) {
	// Letters, because those come through any way of printing.
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
	// A plugin may decrypt first, and then find something wrong.
	plaintext := letters()
	w, err := s.main.encrypt(ctx, plaintext)
	if err != nil {
		return
	}
	for _, f := range slices.Concat(tampered(w), keyIDs(w, map[string]string{"unknown": "another-plugins-key", "none": ""}), oversized(w)) {
		_, _ = s.main.decrypt(ctx, f.wrapped)
	}
	// One that is not encrypted at all.
	_, _ = s.main.decrypt(ctx, seed.Wrapped{KeyID: w.KeyID, Ciphertext: letters(), Annotations: w.Annotations})
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/trousseau-io/trousseau/internal/seed"
)

func encryptChecks() []Check {
	return inGroup("encrypt",
		must(encryptAnswers, "Encrypt of a 32-byte seed is answered within the timeout.",
			sourceEnvelope+"GenerateTransformer", checkEncryptAnswers),
		must("encrypt-key-id", "Encrypt answers with the key_id that Status announces.",
			sourceProbe+"rotateDEKOnKeyIDChange; "+sourceKEP+"key_id and rotation", checkKeyIDAgrees, statusAnswers, encryptAnswers),
		must("encrypt-ciphertext-size", "Ciphertext has 1 to 1024 bytes.",
			sourceEnvelope+"validateEncryptedDEKSource", sealed(checkCiphertextSize), encryptAnswers),
		must("encrypt-annotation-keys", "The key of each annotation is a fully qualified domain name.",
			sourceEnvelope+"validateAnnotations", sealed(checkAnnotationKeys), encryptAnswers),
		must("encrypt-annotation-size", "The annotations, keys and values, have at most 32768 bytes.",
			sourceEnvelope+"validateAnnotations", sealed(checkAnnotationSize), encryptAnswers),
		must("encrypt-hides-seed", "Ciphertext, key_id and annotations do not contain the seed: etcd stores them unencrypted.",
			sourceAPI+"EncryptResponse", sampled(checkSeedHidden), encryptAnswers),
		must("encrypt-distinct", "Different seeds, even by one bit, have different answers.",
			sourceDocs+"Encryption; "+sourceEnvelope+"generateCacheKey", checkDistinct, encryptAnswers),
		should("encrypt-varies", "Encrypting the same seed twice gives two ciphertexts, so that etcd does not reveal equal seeds.",
			"no rule of Kubernetes; usual for encryption", checkVaries, encryptAnswers),
		should("encrypt-latency", "Encrypt usually takes less than 100ms.",
			sourceDocs+"Encryption", checkEncryptLatency, encryptAnswers),
		should("encrypt-empty", "Encrypt of an empty plaintext is an error.",
			"no rule of Kubernetes; kube-apiserver never does it", checkEncryptEmpty, encryptAnswers),
		should("encrypt-oversized", "Encrypt of 64 KiB is an error, because the result could not be stored.",
			sourceEnvelope+"validateEncryptedDEKSource", checkEncryptOversized, encryptAnswers),
	)
}

func checkEncryptAnswers(ctx context.Context, s *subject) outcome {
	start := time.Now()
	if _, err := s.main.encrypt(ctx, s.newSeed()); err != nil {
		return broken("Read the plugin's log. kube-apiserver cannot start with this plugin, nor follow a key rotation.", "%s", said(err))
	}
	return pass("after %s", rounded(time.Since(start)))
}

func checkKeyIDAgrees(ctx context.Context, s *subject) outcome {
	before, err := s.main.status(ctx)
	if err != nil {
		return broken("", "Status: %s", said(err))
	}
	_, w, err := s.main.sample(ctx)
	if err != nil {
		return broken("", "%v", err)
	}
	// The key may be rotated in between.
	after, err := s.main.status(ctx)
	if err != nil {
		return broken("", "Status: %s", said(err))
	}
	if w.KeyID != before.GetKeyId() && w.KeyID != after.GetKeyId() {
		return broken("Encrypt with the key that Status announces. Otherwise kube-apiserver discards the answer and marks the plugin unhealthy.",
			"Status has %q, Encrypt %q", shortened(after.GetKeyId()), shortened(w.KeyID))
	}
	return pass("the same")
}

// sealed is a check of some encrypted seeds.
func sealed(check func([]seed.Wrapped) outcome) func(context.Context, *subject) outcome {
	return func(ctx context.Context, s *subject) outcome {
		all := make([]seed.Wrapped, 4)
		for i := range all {
			var err error
			if _, all[i], err = s.main.sample(ctx); err != nil {
				return broken("", "%v", err)
			}
		}
		return check(all)
	}
}

func checkCiphertextSize(all []seed.Wrapped) outcome {
	var sizes []int
	for _, w := range all {
		size := len(w.Ciphertext)
		if size == 0 || size > maxCiphertext {
			return broken("Put data that does not fit into annotations, or store it elsewhere.", "%d bytes", size)
		}
		sizes = append(sizes, size)
	}
	return pass("%d bytes", slices.Max(sizes))
}

func checkAnnotationKeys(all []seed.Wrapped) outcome {
	for _, w := range all {
		for key := range w.Annotations {
			if len(validation.IsFullyQualifiedDomainName(nil, key)) > 0 {
				return broken("Name annotations like name.example.com: lower case, at least two labels, no slash, no underscore.", "%q", shortened(key))
			}
		}
	}
	if names := slices.Sorted(maps.Keys(all[0].Annotations)); len(names) > 0 {
		return pass("%s", shortened(strings.Join(names, ", ")))
	}
	return pass("no annotations")
}

func checkAnnotationSize(all []seed.Wrapped) outcome {
	for _, w := range all {
		if size := annotationsSize(w); size > maxAnnotations {
			return broken("Keep annotations small: they are stored with each object.", "%d bytes", size)
		}
	}
	return pass("%d bytes", annotationsSize(all[0]))
}

func checkSeedHidden(ctx context.Context, s *subject, plaintext []byte, w seed.Wrapped) outcome {
	parts := map[string]string{"ciphertext": string(w.Ciphertext), "key_id": w.KeyID}
	for key, value := range w.Annotations {
		parts["annotation "+shortened(key)] = key + " " + string(value)
	}
	traces := tracesOf(plaintext)
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		if form, found := formIn(parts[name], traces); found {
			return broken("Do not use this plugin: anyone who can read etcd can read everything.", "the %s contains it %s", name, form)
		}
	}
	return pass("not in the answer")
}

func checkDistinct(ctx context.Context, s *subject) outcome {
	const changes = 8
	first := s.newSeed()
	seen := make(map[string]bool)
	for i := range changes + 1 {
		plaintext := bytes.Clone(first)
		if i > 0 {
			plaintext[len(plaintext)-i] ^= 1
		}
		w, err := s.main.encrypt(ctx, plaintext)
		if err != nil {
			return broken("", "Encrypt: %s", said(err))
		}
		if seen[w.Identity()] {
			return broken("Encrypt the whole seed, with authenticated encryption such as AES-GCM. Otherwise kube-apiserver confuses seeds.", "two seeds that differ in one or two bits have the same answer")
		}
		seen[w.Identity()] = true
	}
	return pass("%d seeds, %d answers", len(seen), len(seen))
}

func checkVaries(ctx context.Context, s *subject) outcome {
	plaintext := s.newSeed()
	first, err := s.main.encrypt(ctx, plaintext)
	if err != nil {
		return broken("", "Encrypt: %s", said(err))
	}
	second, err := s.main.encrypt(ctx, plaintext)
	if err != nil {
		return broken("", "Encrypt: %s", said(err))
	}
	if bytes.Equal(first.Ciphertext, second.Ciphertext) {
		return broken("Use a random nonce for each Encrypt.", "the same ciphertext twice")
	}
	return pass("two ciphertexts")
}

func checkEncryptLatency(ctx context.Context, s *subject) outcome {
	const usual = 100 * time.Millisecond
	var took []time.Duration
	for range 9 {
		start := time.Now()
		if _, _, err := s.main.sample(ctx); err != nil {
			return broken("", "%v", err)
		}
		took = append(took, time.Since(start))
	}
	if m := median(took); m > usual {
		return broken("Check the network path to the remote KMS.", "median %s", rounded(m))
	}
	return pass("median %s", rounded(median(took)))
}

func median(d []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(d))[len(d)/2]
}

func checkEncryptEmpty(ctx context.Context, s *subject) outcome {
	if _, err := s.main.encrypt(ctx, nil); err != nil {
		return pass("refused with %s", status.Code(err))
	}
	return broken("Refuse it with InvalidArgument.", "it is encrypted")
}

func checkEncryptOversized(ctx context.Context, s *subject) outcome {
	const size = 64 << 10
	w, err := s.main.encrypt(ctx, bytes.Repeat(s.newSeed(), size/32))
	if err != nil {
		return pass("refused with %s", status.Code(err))
	}
	return broken("Refuse it with InvalidArgument: such a request is not from kube-apiserver.", "it is encrypted to %d bytes", len(w.Ciphertext))
}

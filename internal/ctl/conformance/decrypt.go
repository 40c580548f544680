// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/seed"
)

func decryptChecks() []Check {
	return inGroup("decrypt",
		must(roundTrips, "Decrypt returns the seed for the answer of Encrypt, with another uid.",
			sourceEnvelope+"TransformFromStorage", checkRoundTrip, encryptAnswers),
		must("decrypt-any-bytes", "A seed is bytes, not text: any bytes are returned unchanged.",
			sourceEnvelope+"GenerateTransformer", checkAnyBytes, roundTrips),
		must("decrypt-any-size", "A plaintext of another size is refused or returned unchanged.",
			sourceAPI+"EncryptRequest; kube-apiserver's plaintexts always have 32 bytes", checkAnySize, roundTrips),
		must("decrypt-again", "Decrypt returns the same result each time, on each connection.",
			sourceEnvelope+"TransformFromStorage: each kube-apiserver calls it again at each start", sampled(checkAgain), roundTrips),
		should("decrypt-latency", "Decrypt usually takes less than 10ms.",
			sourceDocs+"Decryption", checkDecryptLatency, roundTrips),
	)
}

func checkRoundTrip(ctx context.Context, s *subject) outcome {
	const times = 4
	for range times {
		if err := s.main.roundTrip(ctx); err != nil {
			return broken("Do not use this plugin: what it encrypts cannot be decrypted.", "%v", err)
		}
	}
	return pass("%d seeds", times)
}

func checkAnyBytes(ctx context.Context, s *subject) outcome {
	random := s.newSeed()
	plaintexts := []struct {
		what  string
		bytes []byte
	}{
		{"32 NUL bytes", make([]byte, 32)},
		{"32 times 0xff", bytes.Repeat([]byte{0xff}, 32)},
		{"a seed with NUL bytes inside", append(append(bytes.Clone(random[:10]), make([]byte, 8)...), random[:14]...)},
		{"a seed that ends in line breaks", append(bytes.Clone(random[:28]), "\r\n\r\n"...)},
		{"a seed that begins with blanks", append([]byte("    "), random[:28]...)},
		{"a seed that reads as base64", []byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")},
		{"a seed that reads as JSON", []byte(`{"plaintext":"AAAAAAAAAAAAAAA="}`)},
	}
	for _, p := range plaintexts {
		w, err := s.main.encrypt(ctx, p.bytes)
		if err != nil {
			return broken("Treat seeds as bytes.", "%s: Encrypt: %s", p.what, said(err))
		}
		if err := s.main.gives(ctx, w, p.bytes); err != nil {
			return broken("Treat seeds as bytes: do not trim, decode or convert them.", "%s: %v", p.what, err)
		}
	}
	return pass("%d unusual seeds", len(plaintexts))
}

func checkAnySize(ctx context.Context, s *subject) outcome {
	sizes := []int{1, 15, 16, 17, 31, 33, 48, 64, 100, 256}
	var refused []string
	for _, size := range sizes {
		plaintext := s.newPlaintext(size)
		w, err := s.main.encrypt(ctx, plaintext)
		if err != nil {
			refused = append(refused, fmt.Sprint(size))
			continue
		}
		if err := s.main.gives(ctx, w, plaintext); err != nil {
			return broken("Keep the plaintext's size, or refuse any other size than 32 bytes.", "%d bytes: %v", size, err)
		}
	}
	if len(refused) > 0 {
		return pass("refuses %s bytes", strings.Join(refused, ", "))
	}
	return pass("%d to %d bytes", sizes[0], sizes[len(sizes)-1])
}

func checkAgain(ctx context.Context, s *subject, plaintext []byte, w seed.Wrapped) outcome {
	const advice = "Make a ciphertext depend only on the key, not on the connection or process that created it, nor on how often it was used."
	for range 3 {
		if err := s.main.gives(ctx, w, plaintext); err != nil {
			return broken(advice, "again on the same connection: %v", err)
		}
	}
	return s.onNewConnection(func(c *caller) outcome {
		if err := c.gives(ctx, w, plaintext); err != nil {
			return broken(advice, "on a new connection: %v", err)
		}
		return pass("4 times, on 2 connections")
	})
}

func checkDecryptLatency(ctx context.Context, s *subject) outcome {
	const usual = 10 * time.Millisecond
	var took []time.Duration
	for range 9 {
		plaintext, w, err := s.main.sample(ctx)
		if err != nil {
			return broken("", "%v", err)
		}
		start := time.Now()
		if err := s.main.gives(ctx, w, plaintext); err != nil {
			return broken("", "%v", err)
		}
		took = append(took, time.Since(start))
	}
	if m := median(took); m > usual {
		return broken("Check the network path to the remote KMS: a starting kube-apiserver may need thousands of Decrypts before it is ready.", "median %s", rounded(m))
	}
	return pass("median %s", rounded(median(took)))
}

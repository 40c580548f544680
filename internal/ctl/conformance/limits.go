// SPDX-License-Identifier: Apache-2.0

package conformance

import "github.com/trousseau-io/trousseau/internal/seed"

// What kube-apiserver accepts, in bytes: KeyIDMaxSize, encryptedDEKSourceMaxSize
// and annotationsMaxSize in kmsv2/envelope.go. They stand here once more, and
// not in Trousseau's server only, because this is what judges it.
const (
	maxKeyID       = 1 << 10
	maxCiphertext  = 1 << 10
	maxAnnotations = 32 << 10
)

func annotationsSize(w seed.Wrapped) int {
	size := 0
	for key, value := range w.Annotations {
		size += len(key) + len(value)
	}
	return size
}

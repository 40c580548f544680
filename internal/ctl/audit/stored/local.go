// SPDX-License-Identifier: Apache-2.0

package stored

import "errors"

// The forms of the providers whose keys are in a file on the API server's disk
// (k8s.io/apiserver/pkg/storage/value/encrypt/aes and secretbox,
// TransformFromStorage).

var errShort = errors.New("the stored data is shorter than any encrypted data")

// checkCBC: an initialization vector, then at least one whole block, because PKCS #7
// always pads.
func checkCBC(_ *Value, data []byte) error {
	switch {
	case len(data) < 16+16:
		return errShort
	case len(data)%16 != 0:
		return errors.New("the stored data is not a multiple of the block size")
	}
	return nil
}

// checkGCM: a nonce, then AES-GCM's ciphertext with its tag.
func checkGCM(_ *Value, data []byte) error {
	if len(data) < 12+16 {
		return errShort
	}
	return nil
}

// checkSecretbox: a nonce, then a box.
func checkSecretbox(_ *Value, data []byte) error {
	if len(data) < 24+16 {
		return errShort
	}
	return nil
}

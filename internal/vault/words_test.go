// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"fmt"
	"testing"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// wordsOfTheKey is everything that Vault and OpenBao say of a key.
var wordsOfTheKey = []struct {
	status int
	text   string
	class  fault.Class
}{
	{400, "encryption key not found", fault.KeyLost},
	{400, "refusing to use soft-deleted key", fault.KeyLost},
	{400, "invalid ciphertext: version is too new", fault.VersionTooNew},
	{400, "requested version for encryption is higher than the latest key version", fault.VersionTooNew},
	{400, "ciphertext or signature version is disallowed by policy (too old)", fault.VersionTooOld},
	{400, "no such key version", fault.VersionTooOld},
	{400, "requested version for encryption is less than the minimum encryption key version", fault.VersionTooOld},
	{400, "cipher: message authentication failed", fault.Invalid},
	{400, "chacha20poly1305: message authentication failed", fault.Invalid},
	{400, "missing ciphertext to decrypt", fault.Invalid},
	{400, "invalid ciphertext: no prefix", fault.Invalid},
	{400, "invalid ciphertext: wrong number of fields", fault.Invalid},
	{400, "invalid ciphertext: version number could not be decoded", fault.Invalid},
	{400, "invalid ciphertext: could not decode base64", fault.Invalid},
	{400, "invalid ciphertext length", fault.Invalid},
	{400, "invalid key version", fault.Invalid},
	{400, "message encryption not supported for key type ecdsa-p256", fault.KeyUnusable},
	{400, "message decryption not supported for key type ed25519", fault.KeyUnusable},
	{400, "'[0].associated_data' provided for non-AEAD cipher suite rsa-2048", fault.KeyUnusable},
	{400, "missing 'context' for key derivation; the key was created using a derived key", fault.KeyUnusable},
	{400, "base64-decoded nonce must be 12 bytes long when using convergent encryption with this key", fault.KeyUnusable},
	{400, "invalid convergent nonce supplied", fault.KeyUnusable},
	{400, "refusing to support decryption with old convergent encryption key: version 1", fault.KeyUnusable},
	{500, "failed to RSA decrypt the ciphertext: crypto/rsa: decryption error", fault.KeyUnusable},
	{500, "failed to RSA encrypt the plaintext: crypto/rsa: message too long for RSA key size", fault.KeyUnusable},
	{500, "cannot decrypt ciphertext, key version does not have a private counterpart", fault.KeyUnusable},
}

// TestWordsOfTheKey gives the client each text, whole and in the form of both, and with another status, with which it
// is not Vault's word.
func TestWordsOfTheKey(t *testing.T) {
	s := vaulttest.Start(t)
	c := dial(t, s, nil)
	for _, test := range wordsOfTheKey {
		for _, form := range []string{`{"errors":[%q]}`, `{"errors":["1 error occurred:\n\t* %s\n\n"]}`} {
			remove := s.Intercept(answer(test.status, fmt.Sprintf(form, test.text)))
			if got := fault.ClassOf(encrypt(bounded(t), c)); got != test.class {
				t.Errorf("%s: class %q, want %q", test.text, got, test.class)
			}
			remove()
		}
		for _, status := range []int{404, 412, 502} {
			remove := s.Intercept(answer(status, fmt.Sprintf(`{"errors":[%q]}`, test.text)))
			if got := fault.ClassOf(encrypt(bounded(t), c)); got != fault.Unavailable {
				t.Errorf("%d %s: class %q, want unavailable", status, test.text, got)
			}
			remove()
		}
	}
}

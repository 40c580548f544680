// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"net/http"
	"sync"
)

// material encrypts and decrypts with one version of a key. The outcome has Vault's error text.
type material interface {
	seal(plaintext, aad []byte) (sealed []byte, out outcome)
	open(sealed, aad []byte) (plaintext []byte, out outcome)
}

// newMaterial returns new material for a type of key, nil if that does not encrypt.
func newMaterial(kind keyType) material {
	switch {
	case !kind.encrypts:
		return nil
	case kind.cipher == "":
		// Finding primes takes long, and few tests encrypt with RSA.
		return rsaMaterial(sync.OnceValue(func() *rsa.PrivateKey {
			key, err := rsa.GenerateKey(rand.Reader, kind.size)
			if err != nil {
				panic(err)
			}
			return key
		}))
	}
	secret := make([]byte, kind.size)
	// crypto/rand.Read never fails, and neither do the constructors for an AES key of that size.
	_, _ = rand.Read(secret)
	block, err := aes.NewCipher(secret)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aeadMaterial{aead, kind.cipher}
}

// aeadMaterial is AES-GCM. It also stands in for ChaCha20-Poly1305, whose ciphertexts have the same length.
type aeadMaterial struct {
	aead   cipher.AEAD
	cipher string // begins the error texts
}

func (m aeadMaterial) seal(plaintext, aad []byte) ([]byte, outcome) {
	nonce := make([]byte, m.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return m.aead.Seal(nonce, nonce, plaintext, aad), outcome{}
}

func (m aeadMaterial) open(sealed, aad []byte) ([]byte, outcome) {
	n := m.aead.NonceSize()
	if len(sealed) < n {
		return nil, failed(http.StatusBadRequest, "invalid ciphertext length")
	}
	plaintext, err := m.aead.Open(nil, sealed[:n], sealed[n:], aad)
	if err != nil {
		return nil, failed(http.StatusBadRequest, m.cipher+": message authentication failed")
	}
	return plaintext, outcome{}
}

// rsaMaterial is RSA-OAEP, whose failures Vault reports as internal errors. The caller has refused associated data.
type rsaMaterial func() *rsa.PrivateKey

func (m rsaMaterial) seal(plaintext, _ []byte) ([]byte, outcome) {
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &m().PublicKey, plaintext, nil)
	if err != nil {
		return nil, failed(http.StatusInternalServerError, "failed to RSA encrypt the plaintext: "+err.Error())
	}
	return sealed, outcome{}
}

func (m rsaMaterial) open(sealed, _ []byte) ([]byte, outcome) {
	plaintext, err := rsa.DecryptOAEP(sha256.New(), rand.Reader, m(), sealed, nil)
	if err != nil {
		return nil, failed(http.StatusInternalServerError, "failed to RSA decrypt the ciphertext: "+err.Error())
	}
	return plaintext, outcome{}
}

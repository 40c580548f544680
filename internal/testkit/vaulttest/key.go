// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"time"
)

// key is a transit key.
type key struct {
	name            string
	kind            string    // "aes256-gcm96" unless another was asked for
	versions        []version // version n is versions[n-1]
	minDecryption   int
	minEncryption   int // 0 means latest
	deletionAllowed bool
	derived         bool
	exportable      bool
	plaintextBackup bool
}

// version is immutable.
type version struct {
	aead    cipher.AEAD
	created time.Time
}

func newKey(name string, now time.Time) *key {
	return &key{name: name, kind: aes256, versions: []version{newVersion(now)}, minDecryption: 1}
}

func newVersion(now time.Time) version {
	var secret [32]byte
	// crypto/rand.Read never fails, and neither do the constructors for a 32-byte AES key.
	_, _ = rand.Read(secret[:])
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return version{aead: aead, created: now}
}

// latest is the newest version that a node sees which has not heard of the last lag rotations.
func (k *key) latest(lag int) int {
	return max(len(k.versions)-lag, k.minDecryption, 1)
}

// Mount is a transit engine.
type Mount struct {
	store *store
	at    string
}

// Transit is the default engine: "transit" in the root namespace.
func (s *Server) Transit() *Mount { return s.Mount("", "transit") }

// CreateKey creates a key of type aes256-gcm96 with version 1. A key that exists stays as it is.
func (m *Mount) CreateKey(name string) *Key {
	k := m.Key(name)
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	if keys := k.keys(); keys[name] == nil {
		keys[name] = newKey(name, m.store.now())
	}
	return k
}

// Key is the key of this name, which need not exist yet.
func (m *Mount) Key(name string) *Key { return &Key{mount: m, name: name} }

// CreateKey creates a key in the default engine.
func (s *Server) CreateKey(name string) *Key { return s.Transit().CreateKey(name) }

// Key is a key in a transit engine, by name: a Key goes on working over Delete and CreateKey.
type Key struct {
	mount *Mount
	name  string
}

// Rotate adds a version and returns its number.
func (k *Key) Rotate() int {
	var latest int
	k.with(func(key *key) {
		key.versions = append(key.versions, newVersion(k.mount.store.now()))
		latest = len(key.versions)
	})
	return latest
}

// ForgetNewest takes the newest version away, as restoring Vault from a backup older than the last rotation does, and
// returns the number of the one that is now the newest. What only the lost version can decrypt is lost, and the next
// Rotate makes a version of the same number and other key material. Unlike Restore it leaves everything else as it is.
func (k *Key) ForgetNewest() int {
	var latest int
	k.with(func(key *key) {
		if latest = len(key.versions) - 1; latest == 0 {
			panic("vaulttest: forgetting the only version of key " + k.name)
		}
		key.versions = key.versions[:latest:latest]
		key.minDecryption, key.minEncryption = min(key.minDecryption, latest), min(key.minEncryption, latest)
	})
	return latest
}

// Latest is the newest version.
func (k *Key) Latest() int {
	var latest int
	k.with(func(key *key) { latest = len(key.versions) })
	return latest
}

// Created is when a version was made; Vault reports it in whole seconds.
func (k *Key) Created(version int) time.Time {
	var created time.Time
	k.with(func(key *key) { created = key.versions[version-1].created })
	return created
}

// SetMinDecryptionVersion makes ciphertexts of older versions undecryptable.
func (k *Key) SetMinDecryptionVersion(version int) {
	k.with(func(key *key) { key.minDecryption = version })
}

// SetMinEncryptionVersion refuses to encrypt with older versions; 0 means only the latest is used by default.
func (k *Key) SetMinEncryptionVersion(version int) {
	k.with(func(key *key) { key.minEncryption = version })
}

// Delete deletes the key, whatever its deletion_allowed. Nothing that it encrypted can be read again.
func (k *Key) Delete() {
	k.with(func(*key) { delete(k.keys(), k.name) })
}

// Exists reports whether the key is there.
func (k *Key) Exists() bool {
	k.mount.store.mu.Lock()
	defer k.mount.store.mu.Unlock()
	return k.keys()[k.name] != nil
}

// with runs f on the key under the lock.
func (k *Key) with(f func(*key)) {
	k.mount.store.mu.Lock()
	defer k.mount.store.mu.Unlock()
	key := k.keys()[k.name]
	if key == nil {
		panic(fmt.Sprintf("vaulttest: no key %s in %s", k.name, k.mount.at))
	}
	f(key)
}

// keys are the keys of the mount as it is now: Restore may have replaced it. The caller holds the lock.
func (k *Key) keys() map[string]*key {
	m := k.mount.store.mounts[k.mount.at]
	if m == nil {
		panic(fmt.Sprintf("vaulttest: no mount %s", k.mount.at))
	}
	return m.keys
}

// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// key is a transit key.
type key struct {
	name            string
	kind            string    // "aes256-gcm96" by default
	versions        []version // version n is versions[n-1]
	minDecryption   int
	minEncryption   int // 0 means latest
	minAvailable    int
	deletionAllowed bool
	derived         bool
	convergent      bool
	exportable      bool
	plaintextBackup bool
	softDeleted     bool
}

// version is immutable.
type version struct {
	material material // nil for a type that does not encrypt
	created  time.Time
}

// newKey creates a key with version 1.
func newKey(name string, o KeyOptions, now time.Time) *key {
	k := &key{name: name, kind: cmp.Or(o.Type, aes256), minDecryption: 1, derived: o.Derived, convergent: o.Convergent}
	k.rotate(now)
	return k
}

// rotate adds a version.
func (k *key) rotate(now time.Time) {
	k.versions = append(k.versions, version{material: newMaterial(keyTypes[k.kind]), created: now})
}

// latest is the newest version visible to a node that lags behind by lag rotations.
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

// KeyOptions describes a key to be created. The zero value is an aes256-gcm96 key.
type KeyOptions struct {
	Type       string // as in Vault's API: "rsa-2048", "ecdsa-p256", "ed25519", "hmac", …
	Derived    bool   // every request needs a context
	Convergent bool   // needs Derived
}

// mistake is Vault's error text for a key that it does not create; empty if there is none.
func (o KeyOptions) mistake() string {
	kind := cmp.Or(o.Type, aes256)
	switch _, known := keyTypes[kind]; {
	case o.Convergent && !o.Derived:
		return "convergent encryption requires derivation to be enabled"
	case slices.Contains(enterpriseTypes, kind):
		return "key type " + kind + " is only available in enterprise versions of Vault"
	case !known:
		return "unknown key type " + kind
	}
	return ""
}

// CreateKey creates a key of type aes256-gcm96 with version 1. An existing key is not changed.
func (m *Mount) CreateKey(name string) *Key { return m.CreateKeyWith(name, KeyOptions{}) }

// CreateKeyWith is CreateKey for a key of any type.
func (m *Mount) CreateKeyWith(name string, o KeyOptions) *Key {
	if mistake := o.mistake(); mistake != "" {
		panic("vaulttest: creating key " + name + ": " + mistake)
	}
	k := m.Key(name)
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	if keys := k.keys(); keys[name] == nil {
		keys[name] = newKey(name, o, m.store.now())
	}
	return k
}

// Key returns the key of this name, which need not exist yet.
func (m *Mount) Key(name string) *Key { return &Key{mount: m, name: name} }

// CreateKey creates a key in the default engine.
func (s *Server) CreateKey(name string) *Key { return s.Transit().CreateKey(name) }

// CreateKeyWith creates a key of any type in the default engine.
func (s *Server) CreateKeyWith(name string, o KeyOptions) *Key {
	return s.Transit().CreateKeyWith(name, o)
}

// Key is a transit key, identified by name: it stays valid across Delete and CreateKey.
type Key struct {
	mount *Mount
	name  string
}

// Rotate adds a version and returns its number.
func (k *Key) Rotate() int {
	var latest int
	k.with(func(key *key) {
		key.rotate(k.mount.store.now())
		latest = len(key.versions)
	})
	return latest
}

// ForgetNewest removes the newest version, as restoring Vault from a backup older than the last rotation does. It
// returns the number of the version that is now the newest. Data encrypted with the lost version is lost, and the
// next Rotate creates a version with the same number and other key material.
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

// Created returns when a version was created; Vault reports it in whole seconds.
func (k *Key) Created(version int) time.Time {
	var created time.Time
	k.with(func(key *key) { created = key.versions[version-1].created })
	return created
}

// SetMinDecryptionVersion makes ciphertexts of older versions undecryptable.
func (k *Key) SetMinDecryptionVersion(version int) {
	k.with(func(key *key) { key.minDecryption = version })
}

// SetMinEncryptionVersion refuses encryption with older versions; 0 means that only the latest may be used.
func (k *Key) SetMinEncryptionVersion(version int) {
	k.with(func(key *key) { key.minEncryption = version })
}

// Delete deletes the key, regardless of deletion_allowed. Data encrypted with it is lost.
func (k *Key) Delete() {
	k.with(func(*key) { delete(k.keys(), k.name) })
}

// SetSoftDeleted makes OpenBao's soft deletion, or undoes it: the key can be read but not used. Vault has none.
func (k *Key) SetSoftDeleted(deleted bool) {
	k.with(func(key *key) { key.softDeleted = deleted })
}

// Exists reports whether the key exists.
func (k *Key) Exists() bool {
	k.mount.store.mu.Lock()
	defer k.mount.store.mu.Unlock()
	return k.keys()[k.name] != nil
}

// with calls f with the key, holding the lock.
func (k *Key) with(f func(*key)) {
	k.mount.store.mu.Lock()
	defer k.mount.store.mu.Unlock()
	key := k.keys()[k.name]
	if key == nil {
		panic(fmt.Sprintf("vaulttest: no key %s in %s", k.name, k.mount.at))
	}
	f(key)
}

// keys returns the keys of the mount, which must exist. The caller holds the lock.
func (k *Key) keys() map[string]*key {
	m := k.mount.store.mounts[k.mount.at]
	if m == nil {
		panic(fmt.Sprintf("vaulttest: no mount %s", k.mount.at))
	}
	return m.keys
}

// keyType describes a type of key as Vault reports it.
type keyType struct {
	encrypts, signs, derives, associates bool
	public                               string // name of its public keys; empty if it has none
	size                                 int    // of an AEAD's key in bytes, of an RSA key in bits; 0 for a type that does not encrypt
	cipher                               string // begins the AEAD's error texts; empty for another type
}

const aes256 = "aes256-gcm96"

// keyTypes are the types of key that can be created.
var keyTypes = map[string]keyType{
	aes256:              {encrypts: true, derives: true, associates: true, size: 32, cipher: "cipher"},
	"aes128-gcm96":      {encrypts: true, derives: true, associates: true, size: 16, cipher: "cipher"},
	"chacha20-poly1305": {encrypts: true, derives: true, associates: true, size: 32, cipher: "chacha20poly1305"},
	"rsa-2048":          {encrypts: true, signs: true, public: "rsa-2048", size: 2048},
	"rsa-3072":          {encrypts: true, signs: true, public: "rsa-3072", size: 3072},
	"rsa-4096":          {encrypts: true, signs: true, public: "rsa-4096", size: 4096},
	"ed25519":           {signs: true, derives: true, public: "ed25519"},
	"ecdsa-p256":        {signs: true, public: "P-256"},
	"ecdsa-p384":        {signs: true, public: "P-384"},
	"ecdsa-p521":        {signs: true, public: "P-521"},
	"hmac":              {},
}

// enterpriseTypes are types of key that only Vault Enterprise has.
var enterpriseTypes = []string{"aes128-cbc", "aes256-cbc", "aes128-cmac", "aes192-cmac", "aes256-cmac", "managed_key"}

// unusable returns the outcome of an item for a key that does not support the operation. Use is "encryption" or
// "decryption".
func (k *key) unusable(it item, use string) outcome {
	kind := keyTypes[k.kind]
	switch {
	case it.associatedData != "" && !kind.associates:
		// In a batch, Vault does not count this as a failure.
		return outcome{mistake: "'[0].associated_data' provided for non-AEAD cipher suite " + k.kind}
	case k.softDeleted:
		return failed(http.StatusBadRequest, "refusing to use soft-deleted key")
	case !kind.encrypts:
		return failed(http.StatusBadRequest, "message "+use+" not supported for key type "+k.kind)
	case it.context != "":
		return failed(http.StatusBadRequest, "this fake encrypts without contexts")
	}
	return outcome{}
}

// missingContext is Vault's answer for a derived key without a context.
func (k *key) missingContext() string {
	if !k.derived {
		return ""
	}
	return "missing 'context' for key derivation; the key was created using a derived key, which means additional," +
		" per-request information must be included in order to perform operations with the key"
}

// describeVersion returns one version as Vault reports it: the time, with a public key if there is one.
func (k *key) describeVersion(n int) any {
	created := k.versions[n-1].created
	if name := keyTypes[k.kind].public; name != "" {
		return map[string]any{
			"creation_time": created.UTC().Format(time.RFC3339Nano), "name": name, "public_key": "", "hybrid_public_key": "", "certificate_chain": "",
		}
	}
	return created.Unix()
}

func (m *mount) readKey(req *request) reply {
	k := m.keys[req.name]
	if k == nil {
		return refuse(http.StatusNotFound)
	}
	return k.describe(req.lag, m.kind)
}

// describe returns a key as Vault reports it. Versions below min_decryption_version are archived and not shown.
func (k *key) describe(lag int, kind string) reply {
	latest := k.latest(lag)
	is := keyTypes[k.kind]
	data := map[string]any{
		"name":                   k.name,
		"type":                   k.kind,
		"derived":                k.derived,
		"deletion_allowed":       k.deletionAllowed,
		"min_available_version":  k.minAvailable,
		"min_decryption_version": k.minDecryption,
		"min_encryption_version": k.minEncryption,
		"latest_version":         latest,
		"exportable":             k.exportable,
		"allow_plaintext_backup": k.plaintextBackup,
		"supports_encryption":    is.encrypts,
		"supports_decryption":    is.encrypts,
		"supports_signing":       is.signs,
		"supports_derivation":    is.derives,
		"auto_rotate_period":     0,
		"imported_key":           false,
	}
	if k.derived {
		data["kdf"], data["convergent_encryption"] = "hkdf_sha256", k.convergent
	}
	if k.softDeleted {
		data["soft_deleted"] = true
	}
	if k.convergent {
		data["convergent_encryption_version"] = -1
	}
	if k.kind != "hmac" {
		versions := map[string]any{}
		for n := k.minDecryption; n <= latest; n++ {
			versions[strconv.Itoa(n)] = k.describeVersion(n)
		}
		data["keys"] = versions
	}
	return reply{mount: kind, data: data}
}

func (m *mount) createKey(req *request) reply {
	f := req.fields
	o := KeyOptions{Type: f.text("type"), Derived: f.flag("derived", false), Convergent: f.flag("convergent_encryption", false)}
	exportable, plaintextBackup := f.flag("exportable", false), f.flag("allow_plaintext_backup", false)
	if f.mistake != "" {
		return reply{}
	}
	if mistake := o.mistake(); mistake != "" {
		return refuse(http.StatusBadRequest, mistake)
	}
	if m.keys[req.name] == nil {
		k := newKey(req.name, o, req.now)
		k.exportable, k.plaintextBackup = exportable, plaintextBackup
		m.keys[req.name] = k
	}
	// An existing key is not changed; there is no warning.
	return m.keys[req.name].describe(req.lag, m.kind)
}

func (m *mount) rotateKey(req *request) reply {
	k := m.keys[req.name]
	if k == nil {
		return refuse(http.StatusBadRequest, "key not found")
	}
	k.rotate(req.now)
	return k.describe(req.lag, m.kind)
}

func (m *mount) configKey(req *request) reply {
	k := m.keys[req.name]
	if k == nil {
		return refuse(http.StatusBadRequest, fmt.Sprintf("no existing key named %s could be found", req.name))
	}
	f, changed, latest := req.fields, *k, len(k.versions)
	var warnings []string
	if f.has("min_decryption_version") {
		changed.minDecryption = max(1, f.number("min_decryption_version"))
		if f.number("min_decryption_version") == 0 {
			warnings = []string{"since Vault 0.3, transit key numbering starts at 1; forcing minimum to 1"}
		}
	}
	if f.has("min_encryption_version") {
		changed.minEncryption = f.number("min_encryption_version")
	}
	changed.deletionAllowed = f.flag("deletion_allowed", k.deletionAllowed)
	// An exported key cannot be made secret again.
	changed.exportable = k.exportable || f.flag("exportable", false)
	changed.plaintextBackup = k.plaintextBackup || f.flag("allow_plaintext_backup", false)
	switch {
	case f.number("min_decryption_version") < 0:
		return refuse(http.StatusBadRequest, "min decryption version cannot be negative")
	case changed.minDecryption > latest:
		return refuse(http.StatusBadRequest, fmt.Sprintf("cannot set min decryption version of %d, latest key version is %d",
			changed.minDecryption, latest))
	case changed.minEncryption < 0:
		return refuse(http.StatusBadRequest, "min encryption version cannot be negative")
	case changed.minEncryption > latest:
		return refuse(http.StatusBadRequest, fmt.Sprintf("cannot set min encryption version of %d, latest key version is %d",
			changed.minEncryption, latest))
	case changed.minEncryption > 0 && changed.minEncryption < changed.minDecryption:
		return refuse(http.StatusBadRequest, fmt.Sprintf("cannot set min encryption/decryption values; min encryption version of %d"+
			" must be greater than or equal to min decryption version of %d", changed.minEncryption, changed.minDecryption))
	case changed.minAvailable > changed.minEncryption:
		return refuse(http.StatusBadRequest, "min encryption version should not be less than min available version")
	case changed.minAvailable > changed.minDecryption:
		return refuse(http.StatusBadRequest, "min decryption version should not be less then min available version")
	}
	if f.mistake == "" {
		*k = changed
	}
	answer := k.describe(req.lag, m.kind)
	answer.warnings = warnings
	return answer
}

// trimKey permanently removes the versions below min_available_version.
func (m *mount) trimKey(req *request) reply {
	k, n, mistake := m.keys[req.name], req.fields.number("min_available_version"), ""
	switch {
	case k == nil:
		mistake = "invalid key name"
	case !req.fields.has("min_available_version"):
		mistake = "missing min_available_version"
	case n < k.minAvailable:
		mistake = "minimum available version cannot be decremented"
	case k.minEncryption == 0:
		mistake = "minimum available version cannot be set when minimum encryption version is not set"
	case n > k.minEncryption:
		mistake = "minimum available version cannot be greater than minmum encryption version"
	case n > k.minDecryption:
		mistake = "minimum available version cannot be greater than minimum decryption version"
	case n == 0:
		mistake = "minimum available version should be positive"
	}
	if mistake != "" {
		return refuse(http.StatusBadRequest, mistake)
	}
	k.minAvailable = n
	return k.describe(req.lag, m.kind)
}

func (m *mount) deleteKey(req *request) reply {
	k := m.keys[req.name]
	switch {
	case k == nil:
		return refuse(http.StatusBadRequest, fmt.Sprintf("error deleting policy %s: could not delete key; not found", req.name))
	case !k.deletionAllowed:
		return refuse(http.StatusBadRequest, fmt.Sprintf("error deleting policy %s: deletion is not allowed for this key", req.name))
	}
	delete(m.keys, req.name)
	return reply{}
}

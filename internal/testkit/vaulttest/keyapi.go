// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The types of key that differ from the others in what Vault tells about them.
const (
	aes256  = "aes256-gcm96"
	ed25519 = "ed25519"
)

// keyTypes are the types of key that can be created. Only aes256 is of use.
var keyTypes = []string{aes256, "aes128-gcm96", "chacha20-poly1305", ed25519, "rsa-2048", "rsa-4096"}

func (k *key) asymmetric() bool { return k.kind == ed25519 || strings.HasPrefix(k.kind, "rsa-") }

// unusable says why a key neither encrypts nor decrypts; empty if it does.
func (k *key) unusable() string {
	switch {
	case k.kind != aes256:
		return "keys of type " + k.kind + " are of no use in this fake"
	case k.derived:
		// The fake has no context, whatever the request says.
		return "missing 'context' for key derivation; the key was created using a derived key, which means additional," +
			" per-request information must be included in order to perform operations with the key"
	}
	return ""
}

// describeVersion is what Vault tells about one version: the time, with a public key if there is one.
func (k *key) describeVersion(n int) any {
	created := k.versions[n-1].created
	if k.asymmetric() {
		return map[string]any{"creation_time": created.UTC().Format(time.RFC3339Nano), "name": k.kind, "public_key": ""}
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

// describe is what Vault tells about a key. Versions below min_decryption_version are archived and not shown.
func (k *key) describe(lag int, kind string) reply {
	latest := k.latest(lag)
	versions := map[string]any{}
	for n := k.minDecryption; n <= latest; n++ {
		versions[strconv.Itoa(n)] = k.describeVersion(n)
	}
	return reply{mount: kind, data: map[string]any{
		"name":                   k.name,
		"type":                   k.kind,
		"derived":                k.derived,
		"deletion_allowed":       k.deletionAllowed,
		"min_available_version":  0,
		"min_decryption_version": k.minDecryption,
		"min_encryption_version": k.minEncryption,
		"latest_version":         latest,
		"exportable":             k.exportable,
		"allow_plaintext_backup": k.plaintextBackup,
		"supports_encryption":    k.kind != ed25519,
		"supports_decryption":    k.kind != ed25519,
		"supports_signing":       k.asymmetric(),
		"supports_derivation":    !k.asymmetric() || k.kind == ed25519,
		"auto_rotate_period":     0,
		"imported_key":           false,
		"keys":                   versions,
	}}
}

func (m *mount) createKey(req *request) reply {
	f := req.fields
	kind := cmp.Or(f.text("type"), aes256)
	if !slices.Contains(keyTypes, kind) {
		return refuse(http.StatusBadRequest, "unknown key type "+kind)
	}
	wanted := newKey(req.name, req.now)
	wanted.kind = kind
	wanted.derived = f.flag("derived", false)
	wanted.exportable = f.flag("exportable", false)
	wanted.plaintextBackup = f.flag("allow_plaintext_backup", false)
	if f.mistake != "" {
		return reply{}
	}
	if m.keys[req.name] == nil {
		m.keys[req.name] = wanted
	}
	// One that is there stays as it is, and Vault says nothing.
	return m.keys[req.name].describe(req.lag, m.kind)
}

func (m *mount) rotateKey(req *request) reply {
	k := m.keys[req.name]
	if k == nil {
		return refuse(http.StatusBadRequest, "key not found")
	}
	k.versions = append(k.versions, newVersion(req.now))
	return k.describe(req.lag, m.kind)
}

func (m *mount) configKey(req *request) reply {
	k := m.keys[req.name]
	if k == nil {
		return refuse(http.StatusBadRequest, fmt.Sprintf("no existing key named %s could be found", req.name))
	}
	f, changed, latest := req.fields, *k, len(k.versions)
	if f.has("min_decryption_version") {
		changed.minDecryption = max(1, f.number("min_decryption_version"))
	}
	if f.has("min_encryption_version") {
		changed.minEncryption = f.number("min_encryption_version")
	}
	changed.deletionAllowed = f.flag("deletion_allowed", k.deletionAllowed)
	// What may have left Vault cannot be called back.
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
	}
	if f.mistake == "" {
		*k = changed
	}
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

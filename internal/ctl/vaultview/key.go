// SPDX-License-Identifier: Apache-2.0

package vaultview

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Key is what Vault reports about a transit key, beyond [vault.Key].
type Key struct {
	Type                 string                     `json:"type"`
	SupportsEncryption   *bool                      `json:"supports_encryption"` // nil if not reported
	Derived              bool                       `json:"derived"`
	Exportable           bool                       `json:"exportable"`
	AllowPlaintextBackup bool                       `json:"allow_plaintext_backup"`
	DeletionAllowed      bool                       `json:"deletion_allowed"`
	AutoRotatePeriod     Seconds                    `json:"auto_rotate_period"` // 0 is never
	Latest               int                        `json:"latest_version"`
	MinDecryption        int                        `json:"min_decryption_version"`
	MinEncryption        int                        `json:"min_encryption_version"` // 0 is Latest
	Versions             map[string]json.RawMessage `json:"keys"`
}

// Created is when the latest version was created, in whole seconds; zero if not
// known.
func (k *Key) Created() time.Time {
	var seconds int64 // asymmetric keys have an object here
	if json.Unmarshal(k.Versions[strconv.Itoa(k.Latest)], &seconds) != nil || seconds <= 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

// KeyDetails reads a transit key. It needs "read" on <mount>/keys/<name>. The
// error has the class [fault.Denied] if the policy lacks that, and
// [fault.KeyLost] if there is no such key.
func (v *View) KeyDetails(ctx context.Context, name string) (k Key, err error) {
	what := "reading key " + v.Engine() + "/" + name
	err = v.Query(ctx, vault.Query{What: what, Path: v.keyPath(name), Namespace: v.config.Namespace, Missing: "the key does not exist"}, &k)
	if err == nil && k.Latest < 1 {
		err = v.notVault(what)
	}
	return k, err
}

// KeyExists finds out whether a key exists. Where it may not be read, Vault is asked to
// decrypt a made-up ciphertext, and its refusal tells. Unlike encrypting, neither ever
// creates the key. An error means that the answers do not tell.
func (v *View) KeyExists(ctx context.Context, name string) (bool, error) {
	_, err := v.KeyDetails(ctx, name)
	if fault.ClassOf(err) == fault.Denied {
		err = v.MayDecrypt(ctx, name)
	}
	if fault.ClassOf(err) == fault.KeyLost {
		return false, nil
	}
	return err == nil, err
}

func (v *View) keyPath(name string) string { return v.config.TransitPath + "/keys/" + name }

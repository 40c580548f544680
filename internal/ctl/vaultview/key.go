// SPDX-License-Identifier: Apache-2.0

package vaultview

import (
	"context"
	"encoding/json"
	"net/http"
)

// Key is what transit says of a key.
type Key struct {
	Type                 string                     `json:"type"`
	Derived              bool                       `json:"derived"`
	Exportable           bool                       `json:"exportable"`
	AllowPlaintextBackup bool                       `json:"allow_plaintext_backup"`
	DeletionAllowed      bool                       `json:"deletion_allowed"`
	AutoRotatePeriod     int64                      `json:"auto_rotate_period"`
	Latest               int                        `json:"latest_version"`
	MinDecryption        int                        `json:"min_decryption_version"`
	MinEncryption        int                        `json:"min_encryption_version"`
	SupportsEncryption   *bool                      `json:"supports_encryption"`
	Versions             map[string]json.RawMessage `json:"keys"`
}

// Key reads a key of the transit engine's.
func (v *View) Key(ctx context.Context, name string) (Key, error) {
	var answer struct {
		Data *Key `json:"data"`
	}
	_, err := v.ask(ctx, http.MethodGet, v.namespace, v.mount+"/keys/"+name, nil, &answer)
	if err == nil && (answer.Data == nil || answer.Data.Latest < 1) {
		err = errNotVault
	}
	if err != nil {
		return Key{}, err
	}
	return *answer.Data, nil
}

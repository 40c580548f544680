// SPDX-License-Identifier: Apache-2.0

// Package seed is the DEK seed between kube-apiserver, which keeps it wrapped in
// etcd, and Vault, which wraps and unwraps it.
package seed

import (
	"bytes"
	"encoding/base64"
	"fmt"
)

// Wrapped is a DEK seed as kube-apiserver stores it beside the data that it
// encrypts. Treat it as read-only.
type Wrapped struct {
	// KeyID names the key version that wraps the seed.
	KeyID string
	// Ciphertext is the wrapped seed.
	Ciphertext []byte
	// Annotations are what the plugin wants back, by fully qualified domain name.
	// They are stored in the clear, and anyone who can write to etcd can change
	// them.
	Annotations map[string][]byte
}

// Identity is equal for two Wrapped exactly when all their fields are equal.
func (w Wrapped) Identity() string {
	// Quoting keeps the fields apart, and fmt sorts maps by key.
	return fmt.Sprintf("%q %q %q", w.KeyID, w.Ciphertext, w.Annotations)
}

// OfV1 returns the seed in what a plugin of KMS v1 returned for a DEK, without a
// key_id. Plugins for Vault store the transit ciphertext as it is. The original
// Trousseau 2.0 stored a line for each provider, "vault:-:" and the ciphertext in
// base64.
func OfV1(stored []byte) Wrapped {
	for line := range bytes.Lines(stored) {
		_, encoded, _ := bytes.Cut(bytes.TrimSpace(line), []byte(":-:"))
		if text, err := base64.StdEncoding.AppendDecode(nil, encoded); err == nil && bytes.HasPrefix(text, []byte("vault:v")) {
			return Wrapped{Ciphertext: text}
		}
	}
	return Wrapped{Ciphertext: stored}
}

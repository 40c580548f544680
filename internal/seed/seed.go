// SPDX-License-Identifier: Apache-2.0

// Package seed is the DEK seed between kube-apiserver, which keeps it wrapped in
// etcd, and Vault, which wraps and unwraps it.
package seed

import "fmt"

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

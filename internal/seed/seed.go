// SPDX-License-Identifier: Apache-2.0

// Package seed is the DEK seed between kube-apiserver, which keeps it wrapped in
// etcd, and Vault, which wraps and unwraps it.
package seed

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Wrapped is a DEK seed as kube-apiserver stores it beside the data that it
// encrypts. Treat it as read-only.
type Wrapped struct {
	// KeyID names the key version that wraps the seed.
	KeyID string
	// Ciphertext is the wrapped seed.
	Ciphertext []byte
	// Annotations are what the plugin wants back with it, by fully qualified
	// domain name. They are stored in the clear, and whoever can write to etcd
	// can change them.
	Annotations map[string][]byte
}

// Identity is a text that two Wrapped share if all of them is equal, and only
// then.
func (w Wrapped) Identity() string {
	var b strings.Builder
	part := func(text string) {
		b.WriteString(strconv.Itoa(len(text)))
		b.WriteByte(':')
		b.WriteString(text)
	}
	part(w.KeyID)
	part(string(w.Ciphertext))
	for _, key := range slices.Sorted(maps.Keys(w.Annotations)) {
		part(key)
		part(string(w.Annotations[key]))
	}
	return b.String()
}

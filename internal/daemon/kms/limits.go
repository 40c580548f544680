// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/seed"
)

// The limits of kube-apiserver's kmsv2/envelope.go: encryptedDEKSourceMaxSize
// and annotationsMaxSize, in bytes.
const (
	maxCiphertext  = 1 << 10
	maxAnnotations = 32 << 10
)

// checkWrapped says what about a wrapped seed is beyond what kube-apiserver
// accepts, and therefore cannot come from it either; "" if nothing is.
func checkWrapped(w seed.Wrapped) string {
	switch {
	case len(w.Ciphertext) == 0:
		return "ciphertext is empty"
	case len(w.Ciphertext) > maxCiphertext:
		return fmt.Sprintf("ciphertext is %d bytes, at most %d are allowed", len(w.Ciphertext), maxCiphertext)
	case w.KeyID == "":
		return "key_id is empty"
	case len(w.KeyID) > keyid.MaxSize:
		return fmt.Sprintf("key_id is %d bytes, at most %d are allowed", len(w.KeyID), keyid.MaxSize)
	}
	size := 0
	for key, value := range w.Annotations {
		size += len(key) + len(value)
		if !isFQDN(key) {
			return "an annotation's key is not a fully qualified domain name"
		}
	}
	if size > maxAnnotations {
		return fmt.Sprintf("annotations are %d bytes, at most %d are allowed", size, maxAnnotations)
	}
	return ""
}

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// isFQDN applies the rule of IsFullyQualifiedDomainName in
// apimachinery/pkg/util/validation: a lowercase RFC 1123 subdomain of at least
// two labels, with or without a final dot.
func isFQDN(name string) bool {
	name = strings.TrimSuffix(name, ".")
	labels := strings.Split(name, ".")
	if len(name) > 253 || len(labels) < 2 {
		return false
	}
	for _, label := range labels {
		if !dnsLabel.MatchString(label) {
			return false
		}
	}
	return true
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"regexp"
	"strings"

	"github.com/trousseau-io/trousseau/internal/seed"
)

// What kube-apiserver accepts, in bytes: KeyIDMaxSize, encryptedDEKSourceMaxSize
// and annotationsMaxSize in kmsv2/envelope.go. They stand here once more, and
// not in Trousseau's server only, because this is what judges it.
const (
	maxKeyID       = 1 << 10
	maxCiphertext  = 1 << 10
	maxAnnotations = 32 << 10
)

func annotationsSize(w seed.Wrapped) int {
	size := 0
	for key, value := range w.Annotations {
		size += len(key) + len(value)
	}
	return size
}

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// isFQDN is IsFullyQualifiedDomainName of apimachinery/pkg/util/validation: a
// lowercase RFC 1123 subdomain of at least two labels, with or without a final
// dot.
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

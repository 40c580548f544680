// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"io"
)

// redacted is what a Secret prints instead of its value.
const redacted = "[redacted]"

// Secret is a string that does not get printed by accident: fmt with any verb, JSON, YAML, zap and slog all show
// "[redacted]", or nothing when it is empty. The zero Secret is empty. It is immutable and safe for concurrent use.
type Secret struct {
	// The value is kept in a closure, because printers that walk unexported fields by reflection (fmt among them, which
	// calls no methods there) can follow a string or a pointer, but of a func they see only the address.
	reveal func() string
}

// NewSecret returns a Secret that holds value.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{reveal: func() string { return value }}
}

// Reveal returns the value. Call it where the value is used, and nowhere else.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// IsZero reports whether the Secret is empty.
func (s Secret) IsZero() bool { return s.reveal == nil }

// String implements [fmt.Stringer], which zap looks for.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// Format implements [fmt.Formatter], so that no verb and no flag reaches the value.
func (s Secret) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, s.String()) // fmt.State keeps no error to report
}

// MarshalText implements [encoding.TextMarshaler], which JSON, YAML, XML and slog look for.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

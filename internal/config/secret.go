// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"io"
)

// Secret is a string that is not printed by accident: fmt with any verb, JSON, YAML, zap and slog all show "[redacted]",
// or nothing when it is empty. The zero Secret is empty. A Secret is immutable and safe for concurrent use.
type Secret struct {
	// The value is in a closure, because printers that walk unexported fields by reflection follow strings and pointers,
	// but see only the address of a func. fmt is one of them, and calls no methods there.
	reveal func() string
}

// NewSecret returns a Secret that holds value.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{reveal: func() string { return value }}
}

// Reveal returns the value. Call it only where the value is used.
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
	return "[redacted]"
}

// Format implements [fmt.Formatter], so that no verb and no flag reaches the value.
func (s Secret) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, s.String()) // fmt.State keeps no error to report
}

// MarshalText implements [encoding.TextMarshaler], which JSON, YAML, XML and slog look for.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// SPDX-License-Identifier: Apache-2.0

// Package fault defines the error classes that Vault's client, the live key and
// the KMS server share, and an error that carries one.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Class is the kind of an [Error]. The set is closed, so that a class can be a
// metric label.
type Class string

// The classes, and what a caller may conclude from each.
const (
	// Unavailable: no usable answer from Vault; a retry may help.
	Unavailable Class = "unavailable"
	// Sealed: Vault answered that it is sealed or has no active node.
	Sealed Class = "sealed"
	// Throttled: Vault or a proxy before it refused because of load.
	Throttled Class = "throttled"
	// Timeout: the caller's deadline passed before Vault answered.
	Timeout Class = "timeout"
	// Canceled: the caller canceled the request.
	Canceled Class = "canceled"
	// Denied: the token is expired or revoked, or its policy forbids the call.
	Denied Class = "denied"
	// KeyLost: Vault says that the transit key does not exist, or it is not the one
	// that encrypted what we hold.
	KeyLost Class = "key_lost"
	// KeyUnusable: the key is of a type, or has settings, with which Vault cannot
	// encrypt for us.
	KeyUnusable Class = "key_unusable"
	// Overloaded: the concurrency limit was reached until the caller's deadline.
	Overloaded Class = "overloaded"
	// VersionTooOld: the key version is below the key's min_decryption_version or
	// min_encryption_version.
	VersionTooOld Class = "version_too_old"
	// VersionTooNew: this Vault node does not have the key version yet; it may be
	// an eventually consistent standby.
	VersionTooNew Class = "version_too_new"
	// Invalid: Vault will never accept this request, from any caller.
	Invalid Class = "invalid"
)

// Transient reports whether a retry of the same request with the same token may
// succeed.
func (c Class) Transient() bool {
	switch c {
	case Unavailable, Sealed, Throttled, Timeout, VersionTooNew:
		return true
	}
	return false
}

// Error is a failure with its class. Its text never contains a token, a
// plaintext or a Vault response body.
type Error struct {
	Class Class
	// Reason says what failed, where, and what to do.
	Reason string
}

func (e *Error) Error() string { return e.Reason }

// Errorf makes an [Error] with the text of fmt.Errorf; args must not contain a
// secret.
func Errorf(c Class, format string, args ...any) *Error {
	return &Error{Class: c, Reason: fmt.Errorf(format, args...).Error()}
}

// ClassOf returns the class of the first [Error] in err's chain, "" for nil,
// Canceled or Timeout for a context's error, and otherwise Unavailable.
func ClassOf(err error) Class {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Class
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Unavailable
}

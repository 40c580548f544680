// SPDX-License-Identifier: Apache-2.0

// Package fault is the vocabulary of failure that Vault's client, the live key
// and the KMS server share: a closed set of classes, and an error that carries
// one.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Class says what kind of trouble an [Error] is. The set is closed, so a class
// is fit for a metric label.
type Class string

// The classes. What a caller may conclude from each stands beside it.
const (
	// Unavailable: no usable answer from Vault; trying again may help.
	Unavailable Class = "unavailable"
	// Sealed: Vault answered that it is sealed or has no active node.
	Sealed Class = "sealed"
	// Throttled: Vault or something before it refused for load.
	Throttled Class = "throttled"
	// Timeout: the caller's deadline passed before Vault answered.
	Timeout Class = "timeout"
	// Canceled: the caller went away.
	Canceled Class = "canceled"
	// Denied: the token is dead or its policy does not allow the call.
	Denied Class = "denied"
	// KeyLost: the transit key, its mount or its namespace does not exist, or
	// the key is not the one that encrypted what we hold.
	KeyLost Class = "key_lost"
	// Overloaded: as many calls as are allowed were under way until the
	// caller's deadline.
	Overloaded Class = "overloaded"
	// VersionTooOld: the key version is below what Vault still allows
	// (min_decryption_version, min_encryption_version).
	VersionTooOld Class = "version_too_old"
	// VersionTooNew: the Vault node that answered does not know the key
	// version yet, as an eventually consistent standby may not.
	VersionTooNew Class = "version_too_new"
	// Invalid: Vault will never accept this request, whoever asks.
	Invalid Class = "invalid"
)

// Transient reports whether another attempt may fare better, with the same
// token and the same request.
func (c Class) Transient() bool {
	switch c {
	case Unavailable, Sealed, Throttled, Timeout, VersionTooNew:
		return true
	}
	return false
}

// Error is a failure with its class. Its text is made of our own words: never a
// token, a plaintext or a Vault response body.
type Error struct {
	Class Class
	// Reason says what failed, where, and what to do.
	Reason string
}

func (e *Error) Error() string { return e.Reason }

// Errorf makes an [Error] of a class, worded as fmt.Errorf words it; args must
// not hold a secret.
func Errorf(c Class, format string, args ...any) *Error {
	return &Error{Class: c, Reason: fmt.Errorf(format, args...).Error()}
}

// ClassOf returns the class of the first [Error] in err's chain; "" for nil,
// Canceled and Timeout for bare context errors, else Unavailable.
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

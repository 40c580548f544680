// SPDX-License-Identifier: Apache-2.0

package vaultadmin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/hashicorp/vault-client-go"
)

// Error is a refusal by Vault. Its text is ours, and holds no part of the answer's
// body.
type Error struct {
	// Status is the HTTP status code.
	Status int
	// Cause is a reason that a program can act on; "" for any other.
	Cause Cause

	text string
}

// Cause is a reason for a refusal that a program can act on.
type Cause string

// The causes.
const (
	// Changed: the KV secret has another version than the write expected.
	Changed Cause = "changed"
	// Upgrading: the KV engine was just mounted, and is not ready.
	Upgrading Cause = "upgrading"
	// Unknown: there is no such token or accessor, or not any more.
	Unknown Cause = "unknown"
	// Dead: the caller's own token is revoked or expired. Only Vault from 1.17 says so.
	Dead Cause = "dead"
)

func (e *Error) Error() string { return e.text }

// Denied reports whether err is Vault's answer 403.
func Denied(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusForbidden
}

// CauseOf returns the cause of a refusal; "" if there is none.
func CauseOf(err error) Cause {
	var e *Error
	if errors.As(err, &e) {
		return e.Cause
	}
	return ""
}

// Answered reports whether Vault has refused a call, so that a write was surely not
// executed.
func Answered(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status < http.StatusInternalServerError
}

// causes maps messages of Vault 1.21 to causes.
var causes = []struct {
	message string
	cause   Cause
	reason  string
}{
	{"check-and-set parameter did not match", Changed, "the secret has changed since it was read: check `vault kv metadata get`, and run this again"},
	{"Upgrading from non-versioned", Upgrading, "the KV engine is not ready yet: run this again"},
	{"invalid accessor", Unknown, "there is no such accessor"},
	{"bad token", Unknown, "the token is revoked or expired"},
	{"invalid token", Dead, "your token is revoked or expired"},
}

// explain returns an error of ours for a failed call, with what to do.
func (c *Client) explain(doing, capability, path string, err error) error {
	fail := func(format string, args ...any) string {
		return fmt.Sprintf("%s %s at %s: ", doing, path, c.Address()) + fmt.Sprintf(format, args...)
	}
	var redirect *vault.RedirectError
	if errors.As(err, &redirect) {
		return errors.New(fail("vault redirects to another node, and redirects are not followed, to protect the token: set VAULT_ADDR to an address of the active node"))
	}
	var resp *vault.ResponseError
	if !errors.As(err, &resp) {
		return c.network(fail, err)
	}
	e := &Error{Status: resp.StatusCode}
	said := strings.Join(resp.Errors, "\n")
	for _, known := range causes {
		if strings.Contains(said, known.message) {
			e.Cause = known.cause
			e.text = fail("%s (%d)", known.reason, e.Status)
			return e
		}
	}
	switch e.Status {
	case http.StatusForbidden:
		e.text = fail("permission denied (403): the token is revoked or expired, or its policies lack %q on %s", capability, path)
	case http.StatusServiceUnavailable:
		e.text = fail("vault is sealed or has no active node (503): unseal it")
	case http.StatusNotFound:
		e.Cause = Unknown // older versions, for an accessor
		e.text = fail("not found (404)")
	default:
		e.text = fail("vault answered %d %s: see Vault's log", e.Status, http.StatusText(e.Status))
	}
	return e
}

// network returns an error of ours for a failure below HTTP. It passes on only error
// types whose text cannot quote an answer.
func (c *Client) network(fail func(string, ...any) string, err error) error {
	var op *net.OpError
	var verify *tls.CertificateVerificationError
	var foreign foreignError
	switch {
	case errors.As(err, &foreign):
		return errors.New(fail("%v", foreign))
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s%w", fail(""), context.Canceled)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s%w", fail("vault did not answer in time: "), context.DeadlineExceeded)
	case errors.As(err, &verify):
		return errors.New(fail("%v: set VAULT_CACERT to the file with the CA of Vault's certificate", verify))
	case errors.As(err, &op):
		return errors.New(fail("%v: check that Vault is up, and VAULT_ADDR", op))
	}
	return errors.New(fail("the answer is incomplete: check what is between here and Vault"))
}

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

// Error is an answer of Vault's that refuses. Its text is ours, and holds nothing
// of the answer's body.
type Error struct {
	// Status is that of HTTP.
	Status int
	// Cause is why, as far as a program can act upon it; "" if it cannot.
	Cause Cause

	text string
}

// Cause is one of few reasons for a refusal.
type Cause string

// The causes.
const (
	// Changed: a KV secret has another version than the write was meant for.
	Changed Cause = "changed"
	// Upgrading: a KV engine has just been mounted, and is not ready.
	Upgrading Cause = "upgrading"
	// Unknown: there is no such token or accessor.
	Unknown Cause = "unknown"
)

func (e *Error) Error() string { return e.text }

// Denied reports whether Vault has denied a call.
func Denied(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusForbidden
}

// CauseOf returns the cause of a refusal.
func CauseOf(err error) Cause {
	var e *Error
	if errors.As(err, &e) {
		return e.Cause
	}
	return ""
}

// Answered reports whether Vault has refused a call: what was to be written is
// then not written.
func Answered(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status < http.StatusInternalServerError
}

// gone reports whether Vault knows no such token. Of a token it says 403, of an
// accessor 403 or 404, and of both in some versions 400.
func gone(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == http.StatusForbidden || e.Status == http.StatusNotFound || e.Cause == Unknown)
}

// causes are what Vault's messages tell, in those of Vault 1.21.
var causes = []struct {
	message string
	cause   Cause
	reason  string
}{
	{"check-and-set parameter did not match", Changed, "somebody has changed the secret meanwhile: see `vault kv metadata get`, and run this again"},
	{"Upgrading from non-versioned", Upgrading, "the KV engine is not ready yet: run this again"},
	{"invalid accessor", Unknown, "there is no such accessor"},
	{"bad token", Unknown, "the token is dead"},
}

// explain words what went wrong with a call.
func (c *Client) explain(doing, capability, path string, err error) error {
	fail := func(format string, args ...any) string {
		return fmt.Sprintf("%s %s at %s: ", doing, path, c.address) + fmt.Sprintf(format, args...)
	}
	var redirect *vault.RedirectError
	if errors.As(err, &redirect) {
		return errors.New(fail("vault redirects to another node, which is never followed with the token: let VAULT_ADDR be one that reaches the active node"))
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
			if e.Status != http.StatusForbidden {
				return e
			}
		}
	}
	switch {
	case e.Status == http.StatusForbidden:
		e.text = fail("permission denied (403): the token is dead, or its policies lack %q on %s", capability, path)
	case e.Status == http.StatusServiceUnavailable:
		e.text = fail("vault is sealed or has no active node (503): unseal it")
	case e.Status == http.StatusNotFound:
		e.text = fail("there is nothing of this name (404)")
	case e.Status == http.StatusBadRequest && strings.Contains(string(resp.RawResponseBytes), "HTTP request to an HTTPS server"):
		e.text = fail("what listens there speaks TLS: let VAULT_ADDR begin with https://")
	default:
		e.text = fail("vault answered %d %s: its log says more", e.Status, http.StatusText(e.Status))
	}
	return e
}

// network words an error below HTTP. Only types whose text cannot quote an answer
// pass their own on.
func (c *Client) network(fail func(string, ...any) string, err error) error {
	var op *net.OpError
	var verify *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s%w", fail(""), context.Canceled)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s%w", fail("vault did not answer in time: "), context.DeadlineExceeded)
	case errors.As(err, &verify):
		return errors.New(fail("%v: let VAULT_CACERT name the file with the CA of Vault's certificate", verify))
	case errors.As(err, &op):
		return errors.New(fail("%v: see whether Vault is up, and VAULT_ADDR right", op))
	}
	return errors.New(fail("the answer is not one of Vault's: see what listens there, and whether VAULT_ADDR is right"))
}

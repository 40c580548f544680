// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/hashicorp/vault-client-go"
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

// Error is the only kind of error that a [Client]'s calls return. Its text is
// made of our own words: never a token, a plaintext or a Vault response body.
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

// refusals are the messages of the transit engine that decide a class; the
// first that occurs in an answer wins. They are those of Vault 1.21 and OpenBao
// 2.6, builtin/logical/transit and sdk/helper/keysutil.
var refusals = []struct {
	message string
	class   Class
	reason  string
}{
	{"disallowed by policy (too old)", VersionTooOld, "this key version is below the key's min_decryption_version; lower it until everything is re-encrypted"},
	{"less than the minimum encryption key version", VersionTooOld, "this key version is below the key's min_encryption_version"},
	{"version is too new", VersionTooNew, "the Vault node that answered does not know this key version (yet)"},
	{"higher than the latest key version", VersionTooNew, "the Vault node that answered does not know this key version (yet)"},
	{"encryption key not found", KeyLost, "the key does not exist"},
	{"soft-deleted key", KeyLost, "the key is deleted"},
	{"message authentication failed", Invalid, "the ciphertext was not made by this key"},
	{"invalid ciphertext", Invalid, "the ciphertext is not one of transit's"},
}

const (
	// plainToTLS is how net/http's server, which is Vault's, answers plain HTTP
	// on a TLS port.
	plainToTLS = "Client sent an HTTP request to an HTTPS server"
	// unreadable begins the message that vault-client-go puts in the place of
	// Vault's when the answer breaks off.
	unreadable = "received an error response from vault but could not read its body"
)

// refusesLogin reports whether an auth method says no by this status: each has
// its own, and AppRole answers 400 to a wrong secret ID.
func refusesLogin(code int) bool {
	switch code {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return true
	}
	return false
}

// explain turns what vault-client-go returned for a call into an [Error]. It is
// the only place that looks at an HTTP status or at Vault's words, and neither
// gets any further than a choice among fixed texts.
func (c *Client) explain(ctx context.Context, call call, err error) *Error {
	fail := call.fail
	switch ctx.Err() {
	case context.Canceled:
		return fail(Canceled, "the caller canceled it")
	case context.DeadlineExceeded:
		return fail(Timeout, "vault did not answer in time")
	}
	// The backstop; a dial that timed out says so in a net.OpError.
	var op *net.OpError
	if errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &op) {
		return fail(Timeout, "vault did not answer in time")
	}
	var redirect *vault.RedirectError
	if errors.As(err, &redirect) {
		return fail(Unavailable, "vault redirects to another node, which is never followed with the token; use an address that reaches the active node")
	}
	var resp *vault.ResponseError
	if !errors.As(err, &resp) {
		return fail(Unavailable, transportReason(err))
	}
	said := strings.Join(resp.Errors, "\n")
	switch code := resp.StatusCode; {
	case call.refused != "" && refusesLogin(code) && !strings.HasPrefix(said, unreadable):
		return fail(Denied, fmt.Sprintf("%s (%d)", call.refused, code))
	case code == http.StatusBadRequest && strings.HasPrefix(string(resp.RawResponseBytes), plainToTLS):
		return fail(Unavailable, "what listens there speaks TLS; the address must be https://")
	case code == http.StatusBadRequest && said != "" && !strings.HasPrefix(said, unreadable):
		for _, r := range refusals {
			if strings.Contains(said, r.message) {
				return fail(r.class, r.reason)
			}
		}
		return fail(Invalid, "vault refused the request as malformed (400)")
	case code == http.StatusForbidden, code == http.StatusUnauthorized:
		return fail(Denied, fmt.Sprintf("permission denied (%d): the token is expired or revoked, or its policy lacks %q on %s", code, call.capability, call.path))
	case code == http.StatusNotFound && strings.Contains(said, "no handler for route"):
		return fail(KeyLost, fmt.Sprintf("no transit engine is mounted at %s (404)", c.engine))
	case code == http.StatusNotFound && string(resp.RawResponseBytes) == `{"errors":[]}`+"\n", code == http.StatusNotFound && string(resp.RawResponseBytes) == `{"errors":[]}`:
		return fail(KeyLost, "it does not exist (404)")
	case code == http.StatusTooManyRequests:
		return fail(Throttled, "a rate limit was hit (429)")
	case code == http.StatusServiceUnavailable && (strings.Contains(said, "sealed") || strings.Contains(said, "no active")):
		return fail(Sealed, "vault is sealed or has no active node (503)")
	case code == http.StatusPreconditionFailed:
		return fail(VersionTooNew, "the Vault node that answered lags behind (412)")
	case code >= 500:
		return fail(Unavailable, fmt.Sprintf("vault answered %d %s", code, http.StatusText(code)))
	}
	return fail(Unavailable, fmt.Sprintf("the answer %d %s is not one of Vault's for this call; check what listens at this address", resp.StatusCode, http.StatusText(resp.StatusCode)))
}

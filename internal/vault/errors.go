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

	"github.com/trousseau-io/trousseau/internal/fault"
)

// refusals are the messages of the transit engine that decide a class; the
// first that occurs in an answer wins. They are those of Vault 1.21 and OpenBao
// 2.6, builtin/logical/transit and sdk/helper/keysutil.
var refusals = []struct {
	message string
	class   fault.Class
	reason  string
}{
	{"disallowed by policy (too old)", fault.VersionTooOld, "this key version is below the key's min_decryption_version; lower it until everything is re-encrypted"},
	{"less than the minimum encryption key version", fault.VersionTooOld, "this key version is below the key's min_encryption_version"},
	{"version is too new", fault.VersionTooNew, "the Vault node that answered does not know this key version (yet)"},
	{"higher than the latest key version", fault.VersionTooNew, "the Vault node that answered does not know this key version (yet)"},
	{"encryption key not found", fault.KeyLost, "the key does not exist"},
	{"soft-deleted key", fault.KeyLost, "the key is deleted"},
	{"message authentication failed", fault.Invalid, "the ciphertext was not made by this key"},
	{"invalid ciphertext", fault.Invalid, "the ciphertext is not one of transit's"},
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

// explain turns what vault-client-go returned for a call into an [fault.Error]. It is
// the only place that looks at an HTTP status or at Vault's words, and neither
// gets any further than a choice among fixed texts.
func (c *Client) explain(ctx context.Context, call call, err error) *fault.Error {
	fail := call.fail
	switch ctx.Err() {
	case context.Canceled:
		return fail(fault.Canceled, "the caller canceled it")
	case context.DeadlineExceeded:
		return fail(fault.Timeout, "vault did not answer in time")
	}
	// The backstop; a dial that timed out says so in a net.OpError.
	var op *net.OpError
	if errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &op) {
		return fail(fault.Timeout, "vault did not answer in time")
	}
	var redirect *vault.RedirectError
	if errors.As(err, &redirect) {
		return fail(fault.Unavailable, "vault redirects to another node, which is never followed with the token; use an address that reaches the active node")
	}
	var resp *vault.ResponseError
	if !errors.As(err, &resp) {
		return fail(fault.Unavailable, transportReason(err))
	}
	said := strings.Join(resp.Errors, "\n")
	switch code := resp.StatusCode; {
	case call.refused != "" && refusesLogin(code) && !strings.HasPrefix(said, unreadable):
		return fail(fault.Denied, fmt.Sprintf("%s (%d)", call.refused, code))
	case code == http.StatusBadRequest && strings.HasPrefix(string(resp.RawResponseBytes), plainToTLS):
		return fail(fault.Unavailable, "what listens there speaks TLS; the address must be https://")
	case code == http.StatusBadRequest && said != "" && !strings.HasPrefix(said, unreadable):
		for _, r := range refusals {
			if strings.Contains(said, r.message) {
				return fail(r.class, r.reason)
			}
		}
		return fail(fault.Invalid, "vault refused the request as malformed (400)")
	case code == http.StatusForbidden, code == http.StatusUnauthorized:
		return fail(fault.Denied, fmt.Sprintf("permission denied (%d): the token is expired or revoked, or its policy lacks %q on %s", code, call.capability, call.path))
	case code == http.StatusNotFound && strings.Contains(said, "no handler for route"):
		return fail(fault.KeyLost, fmt.Sprintf("no transit engine is mounted at %s (404)", c.engine))
	case code == http.StatusNotFound && string(resp.RawResponseBytes) == `{"errors":[]}`+"\n", code == http.StatusNotFound && string(resp.RawResponseBytes) == `{"errors":[]}`:
		return fail(fault.KeyLost, "it does not exist (404)")
	case code == http.StatusTooManyRequests:
		return fail(fault.Throttled, "a rate limit was hit (429)")
	case code == http.StatusServiceUnavailable && (strings.Contains(said, "sealed") || strings.Contains(said, "no active")):
		return fail(fault.Sealed, "vault is sealed or has no active node (503)")
	case code == http.StatusPreconditionFailed:
		return fail(fault.VersionTooNew, "the Vault node that answered lags behind (412)")
	case code >= 500:
		return fail(fault.Unavailable, fmt.Sprintf("vault answered %d %s", code, http.StatusText(code)))
	}
	return fail(fault.Unavailable, fmt.Sprintf("the answer %d %s is not one of Vault's for this call; check what listens at this address", resp.StatusCode, http.StatusText(resp.StatusCode)))
}

// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault-client-go"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// refusals map messages of the transit engine to a class; the first that occurs
// in an answer wins. They are those of Vault 1.21 and OpenBao 2.6,
// builtin/logical/transit and sdk/helper/keysutil.
var refusals = []struct {
	message string
	class   fault.Class
	reason  string
}{
	{"disallowed by policy (too old)", fault.VersionTooOld, "this key version is below the key's min_decryption_version; lower it until everything is re-encrypted"},
	{"less than the minimum encryption key version", fault.VersionTooOld, "this key version is below the key's min_encryption_version"},
	{"version is too new", fault.VersionTooNew, "this Vault node does not have this key version (yet)"},
	{"higher than the latest key version", fault.VersionTooNew, "this Vault node does not have this key version (yet)"},
	{"encryption key not found", fault.KeyLost, "the key does not exist"},
	{"soft-deleted key", fault.KeyLost, "the key is deleted"},
	{"message authentication failed", fault.Invalid, "the ciphertext was not made by this key"},
	{"invalid ciphertext", fault.Invalid, "not a valid transit ciphertext"},
}

// unreadable begins the message that vault-client-go substitutes for Vault's when
// the response ends early.
const unreadable = "received an error response from vault but could not read its body"

// loginRefusals are the statuses with which auth methods refuse a login: AppRole
// answers 400 to a wrong secret ID.
var loginRefusals = []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}

// explain classifies an error that vault-client-go returned for a call. It is the
// only place that reads an HTTP status or Vault's message, and uses both only to
// choose among fixed texts.
func (c *Client) explain(ctx context.Context, call call, err error) *fault.Error {
	var (
		fail     = fault.Errorf
		op       *net.OpError
		redirect *vault.RedirectError
		resp     *vault.ResponseError
	)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fail(fault.Canceled, "canceled by the caller")
	// Or vault-client-go's own deadline; a dial that timed out returns a net.OpError.
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &op):
		return fail(fault.Timeout, "vault did not answer in time")
	case errors.As(err, &redirect):
		return fail(fault.Unavailable, "vault redirected the request, which is never followed with the token; use an address that reaches the active node")
	case !errors.As(err, &resp):
		return fail(fault.Unavailable, "%s", transportReason(err))
	}
	said := strings.Join(resp.Errors, "\n")
	switch code := resp.StatusCode; {
	case call.refused != "" && slices.Contains(loginRefusals, code) && !strings.HasPrefix(said, unreadable):
		return fail(fault.Denied, "%s (%d)", call.refused, code)
	// This is how net/http's server, which is Vault's, answers plain HTTP on a TLS port.
	case code == http.StatusBadRequest && strings.HasPrefix(string(resp.RawResponseBytes), "Client sent an HTTP request to an HTTPS server"):
		return fail(fault.Unavailable, "the server speaks TLS; use https://")
	case code == http.StatusBadRequest && said != "" && !strings.HasPrefix(said, unreadable):
		for _, r := range refusals {
			if strings.Contains(said, r.message) {
				return fail(r.class, "%s", r.reason)
			}
		}
		return fail(fault.Invalid, "vault refused the request as malformed (400)")
	case code == http.StatusForbidden, code == http.StatusUnauthorized:
		capability := "read"
		if call.body != nil {
			capability = "update"
		}
		return fail(fault.Denied, "permission denied (%d): the token is expired or revoked, or its policy lacks %q on %s", code, capability, call.path)
	case code == http.StatusNotFound && strings.Contains(said, "no handler for route"):
		return fail(fault.KeyLost, "no transit engine is mounted at %s (404)", c.engine)
	case code == http.StatusNotFound && strings.TrimSuffix(string(resp.RawResponseBytes), "\n") == `{"errors":[]}`:
		return fail(fault.KeyLost, "not found (404)")
	case code == http.StatusTooManyRequests:
		return fail(fault.Throttled, "rate limit exceeded (429)")
	case code == http.StatusServiceUnavailable && (strings.Contains(said, "sealed") || strings.Contains(said, "no active")):
		return fail(fault.Sealed, "vault is sealed or has no active node (503)")
	case code == http.StatusPreconditionFailed:
		return fail(fault.VersionTooNew, "this Vault node is behind in replication (412)")
	case code >= 500:
		return fail(fault.Unavailable, "vault answered %d %s", code, http.StatusText(code))
	}
	return fail(fault.Unavailable, "unexpected response %d %s; check what listens at this address", resp.StatusCode, http.StatusText(resp.StatusCode))
}

// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/hashicorp/vault-client-go"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// word is something that Vault says, with the status it says it with.
type word struct {
	status int
	text   string // a part of Vault's message
	class  fault.Class
	reason string
}

const (
	unlike   = "the ciphertext was not made by this key"
	notOurs  = "not a valid transit ciphertext"
	behind   = "this Vault node does not have this key version (yet)"
	fixed    = "the token cannot be renewed"
	wrongFor = "this type of key cannot encrypt seeds, or the key is derived; create a key of type aes256-gcm96, not derived"
)

// words is the closed list of what Vault and OpenBao say of a key. The first that
// occurs in an answer counts. Whatever is not in it says nothing about the key,
// and is an outage. The texts are those of Vault 1.21 and OpenBao 2.6; K is
// sdk/helper/keysutil/policy.go, T is builtin/logical/transit.
var words = []word{
	// Not about the request: the node is not one to ask, or something before it has
	// changed the request.
	{400, "in replication DR secondary mode", fault.Unavailable, "this is a DR secondary (400); use the address of the primary"},          // Vault Enterprise
	{400, "missing client token", fault.Unavailable, "the token did not reach Vault (400); check for a proxy that removes it"},            // Vault before 1.12
	{400, "x-forwarded-for", fault.Unavailable, "vault refused the proxy before it (400); check the listener's x_forwarded_for settings"}, // http/handler.go

	{400, "encryption key not found", fault.KeyLost, "the key does not exist"},     // T/path_decrypt.go, T/path_encrypt.go
	{400, "refusing to use soft-deleted key", fault.KeyLost, "the key is deleted"}, // OpenBao's K

	{400, "version is too new", fault.VersionTooNew, behind},                 // K, DecryptWithFactory
	{400, "higher than the latest key version", fault.VersionTooNew, behind}, // K, EncryptWithFactory

	{400, "disallowed by policy (too old)", fault.VersionTooOld, "this key version is below the key's min_decryption_version; lower it until everything is re-encrypted"}, // K, ErrTooOld
	{400, "no such key version", fault.VersionTooOld, "the key no longer has this version; restore it from a backup"},                                                     // K, safeGetKeyEntry
	{400, "less than the minimum encryption key version", fault.VersionTooOld, "this key version is below the key's min_encryption_version"},                              // K, EncryptWithFactory

	{400, "message authentication failed", fault.Invalid, unlike},              // K, symmetric decryption: of AES-GCM and of ChaCha20-Poly1305
	{400, "invalid ciphertext", fault.Invalid, notOurs},                        // K, DecryptWithFactory: prefix, fields, version, base64, length
	{400, "missing ciphertext to decrypt", fault.Invalid, notOurs},             // T/path_decrypt.go
	{400, "invalid key version", fault.Invalid, notOurs},                       // K, DeriveKey
	{500, "failed to RSA decrypt", fault.KeyUnusable, wrongFor},                // K, DecryptWithFactory
	{500, "failed to RSA encrypt", fault.KeyUnusable, wrongFor},                // K, EncryptWithFactory
	{500, "a private counterpart", fault.KeyUnusable, wrongFor},                // OpenBao's K
	{400, "encryption not supported for key", fault.KeyUnusable, wrongFor},     // K, EncryptWithFactory: ecdsa, ed25519, hmac
	{400, "decryption not supported for key", fault.KeyUnusable, wrongFor},     // K, DecryptWithFactory
	{400, "for non-AEAD cipher suite", fault.KeyUnusable, wrongFor},            // T/path_decrypt.go, T/path_encrypt.go: associated data
	{400, "missing 'context' for key derivation", fault.KeyUnusable, wrongFor}, // K, DeriveKey
	{400, "using convergent encryption", fault.KeyUnusable, wrongFor},          // K, EncryptWithFactory
	{400, "invalid convergent nonce", fault.KeyUnusable, wrongFor},             // K, DecryptWithFactory
	{400, "old convergent encryption key", fault.KeyUnusable, wrongFor},        // OpenBao's K

	// Of the token, when it is renewed: vault/expiration.go, vault/token_store.go.
	{400, "not renewable", fault.Invalid, fixed},
	{400, "cannot be renewed", fault.Invalid, fixed},
	{400, "invalid lease ID", fault.Invalid, fixed},
	{400, "lease not found", fault.Invalid, fixed},
	{400, "lease expired", fault.Invalid, fixed},
}

// unread reports whether the response ended early. vault-client-go then substitutes
// a message for Vault's.
func unread(resp *vault.ResponseError) bool {
	return len(resp.Errors) > 0 && strings.HasPrefix(resp.Errors[0], "received an error response from vault but could not read its body")
}

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
	code := resp.StatusCode
	// Empty if the answer is not Vault's JSON: a proxy's page, for example.
	said := strings.Join(resp.Errors, "\n")
	if unread(resp) {
		said = ""
	}
	for _, w := range words {
		if code == w.status && strings.Contains(said, w.text) {
			return fail(w.class, "%s", w.reason)
		}
	}
	switch {
	case call.refused != "" && said != "" && (code == http.StatusBadRequest || code == http.StatusForbidden):
		return fail(fault.Denied, "%s (%d)", call.refused, code)
	case code == http.StatusForbidden && strings.Contains(said, "permission denied"):
		capability := "read"
		if call.body != nil {
			capability = "update"
		}
		return fail(fault.Denied, "permission denied (%d): the token is expired or revoked, or its policy lacks %q on %s", code, capability, call.path)
	case code == http.StatusNotFound && call.missing != "" && strings.TrimSuffix(string(resp.RawResponseBytes), "\n") == `{"errors":[]}`:
		return fail(fault.KeyLost, "%s (404)", call.missing)
	case code == http.StatusNotFound && strings.Contains(said, "no handler for route"):
		return fail(fault.Unavailable, "nothing is mounted at this path (404); check the address, namespace and mount")
	// This is how net/http's server, which is Vault's, answers plain HTTP on a TLS port.
	case code == http.StatusBadRequest && strings.HasPrefix(string(resp.RawResponseBytes), "Client sent an HTTP request to an HTTPS server"):
		return fail(fault.Unavailable, "the server speaks TLS; use https://")
	case code == http.StatusBadRequest && said != "":
		return fail(fault.Unavailable, "vault refused the request (400) for a reason that trousseau does not know; see Vault's audit log")
	case code == http.StatusPreconditionFailed:
		return fail(fault.Unavailable, "this Vault node is behind in replication (412)")
	case code == http.StatusTooManyRequests:
		return fail(fault.Throttled, "rate limit exceeded (429)")
	case code == http.StatusServiceUnavailable && (strings.Contains(said, "sealed") || strings.Contains(said, "no active")):
		return fail(fault.Sealed, "vault is sealed or has no active node (503)")
	case code >= 500:
		return fail(fault.Unavailable, "vault answered %d %s", code, http.StatusText(code))
	}
	return fail(fault.Unavailable, "the answer is not Vault's: %d %s; check for a proxy, a firewall or another server at this address", code, http.StatusText(code))
}

// explainItem classifies what Vault says of one item of a batch. The status is that
// of the whole call, so it does not count.
func explainItem(said string) *fault.Error {
	for _, w := range words {
		if strings.Contains(said, w.text) {
			return fault.Errorf(w.class, "%s", w.reason)
		}
	}
	return fault.Errorf(fault.Unavailable, "vault refused this item of a batch for a reason that trousseau does not know; see Vault's audit log")
}

// results returns the answer with the results of each item that comes with a
// failed batch; nil if there is none. refused means that the batch as such may be
// the reason.
func results(err error) (a answer, refused bool) {
	var resp *vault.ResponseError
	if !errors.As(err, &resp) || unread(resp) {
		return nil, false
	}
	a = &vault.Response[map[string]any]{}
	if json.Unmarshal(resp.RawResponseBytes, a) == nil && a.Data["batch_results"] != nil {
		return a, false
	}
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusRequestEntityTooLarge:
		return nil, true
	}
	return nil, false
}

// SPDX-License-Identifier: Apache-2.0

package vaultadmin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// maxAnswer is the maximum length of an answer, in bytes. sys/mounts is the longest.
const maxAnswer = 16 << 20

// vaultOnly passes on only the answers of Vault. A proxy's 404 must not look like
// Vault's "not there", nor its 403 like Vault's word about a token.
type vaultOnly struct{ *http.Transport }

func (t vaultOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	if !fromVault(resp.StatusCode, body) {
		return nil, foreignError{resp.StatusCode, bytes.Contains(body, []byte("HTTP request to an HTTPS server"))}
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// fromVault reports whether Vault could give an answer: JSON with one of two fields,
// or 204 (respondOk and respondErrorCommon in vault/http), or a redirect.
func fromVault(status int, body []byte) bool {
	if status == http.StatusNoContent || status >= 300 && status < 400 {
		return true
	}
	var said map[string]json.RawMessage
	return json.Unmarshal(body, &said) == nil && (said["errors"] != nil || said["request_id"] != nil)
}

// foreignError is the answer of another server.
type foreignError struct {
	status int
	tls    bool // it wants TLS
}

func (e foreignError) Error() string {
	if e.tls {
		return "the server uses TLS: set VAULT_ADDR to an https:// URL"
	}
	return fmt.Sprintf("the answer (%d) is not from Vault: check VAULT_ADDR, and what is between here and Vault", e.status)
}

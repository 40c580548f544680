// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// transitOp tells what a request to a transit engine wants. Strict is false when there is no such engine: then the end
// of the path is enough, so that the request is counted under its name. OpOther with a name is a path that exists but
// not with this method.
func transitOp(method, rest string, strict bool) (op, name string) {
	segments := strings.Split(rest, "/")
	if !strict {
		segments = segments[max(0, len(segments)-2):]
	}
	var what string
	switch {
	case len(segments) == 2 && segments[1] != "":
		what, name = segments[0], segments[1]
	case len(segments) == 3 && segments[0] == "keys":
		what, name = segments[2], segments[1]
	}
	switch method + " " + what {
	case "POST encrypt":
		return OpEncrypt, name
	case "POST decrypt":
		return OpDecrypt, name
	case "GET keys":
		return OpReadKey, name
	case "POST keys":
		return OpCreateKey, name
	case "DELETE keys":
		return OpDeleteKey, name
	case "POST rotate":
		return OpRotateKey, name
	case "POST config":
		return OpConfigKey, name
	}
	if !slices.Contains([]string{"encrypt", "decrypt", "keys", "rotate", "config"}, what) {
		return OpOther, ""
	}
	return OpOther, name
}

func (m *mount) encrypt(req *request) reply {
	f := req.fields
	switch {
	case f.has("batch_input"):
		return refuse(http.StatusBadRequest, "batch_input is not supported by this fake")
	case !f.has("plaintext"):
		return refuse(http.StatusBadRequest, "missing plaintext to encrypt")
	}
	plaintext, err := base64.StdEncoding.DecodeString(f.text("plaintext"))
	n := f.number("key_version")
	switch {
	case f.mistake != "":
		return reply{}
	case err != nil:
		return refuse(http.StatusBadRequest, err.Error())
	}
	k := m.keys[req.name]
	if k == nil {
		// The policy said "create": Vault creates a missing key on the way.
		k = newKey(req.name, req.now)
		m.keys[req.name] = k
	}
	if mistake := k.unusable(); mistake != "" {
		return refuse(http.StatusBadRequest, mistake)
	}
	latest := k.latest(req.lag)
	switch {
	case n == 0:
		n = latest
	case n < 0:
		return refuse(http.StatusBadRequest, "requested version for encryption is negative")
	case n > latest:
		return refuse(http.StatusBadRequest, "requested version for encryption is higher than the latest key version")
	case n < k.minEncryption:
		return refuse(http.StatusBadRequest, "requested version for encryption is less than the minimum encryption key version")
	case n < k.minDecryption:
		// Archived: Vault no longer has it in memory.
		return refuse(http.StatusBadRequest, "no such key version")
	}
	aad, bad := associatedData(f)
	if bad != nil {
		return *bad
	}
	aead := k.versions[n-1].aead
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	sealed := aead.Seal(nonce, nonce, plaintext, aad)
	ciphertext := fmt.Sprintf("vault:v%d:%s", n, base64.StdEncoding.EncodeToString(sealed))
	return reply{data: map[string]any{"ciphertext": ciphertext, "key_version": n}, mount: m.kind}
}

func (m *mount) decrypt(req *request, secrets *secrets) reply {
	f := req.fields
	switch {
	case f.has("batch_input"):
		return refuse(http.StatusBadRequest, "batch_input is not supported by this fake")
	case f.text("ciphertext") == "":
		return refuse(http.StatusBadRequest, "missing ciphertext to decrypt")
	}
	k := m.keys[req.name]
	if k == nil {
		return refuse(http.StatusBadRequest, "encryption key not found")
	}
	if mistake := k.unusable(); mistake != "" {
		return refuse(http.StatusBadRequest, mistake)
	}
	n, sealed, mistake := k.parse(f.text("ciphertext"), req.lag)
	if mistake != "" {
		return refuse(http.StatusBadRequest, mistake)
	}
	aad, bad := associatedData(f)
	if bad != nil {
		return *bad
	}
	aead := k.versions[n-1].aead
	if len(sealed) < aead.NonceSize() {
		return refuse(http.StatusBadRequest, "invalid ciphertext length")
	}
	plaintext, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], aad)
	if err != nil {
		return refuse(http.StatusBadRequest, err.Error())
	}
	secrets.add(string(plaintext))
	return reply{data: map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plaintext)}, mount: m.kind}
}

// parse takes a ciphertext apart, checking in the order Vault does (sdk/helper/keysutil/policy.go, DecryptWithOptions).
// Mistake is in Vault's words, empty if there is none.
func (k *key) parse(ciphertext string, lag int) (n int, sealed []byte, mistake string) {
	fields, ok := strings.CutPrefix(ciphertext, "vault:v")
	if !ok {
		return 0, nil, "invalid ciphertext: no prefix"
	}
	number, encoded, ok := strings.Cut(fields, ":")
	if !ok {
		return 0, nil, "invalid ciphertext: wrong number of fields"
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return 0, nil, "invalid ciphertext: version number could not be decoded"
	}
	if n == 0 {
		n = 1
	}
	switch {
	case n > k.latest(lag):
		return 0, nil, "invalid ciphertext: version is too new"
	case n < k.minDecryption:
		return 0, nil, "ciphertext or signature version is disallowed by policy (too old)"
	}
	if sealed, err = base64.StdEncoding.DecodeString(encoded); err != nil {
		return 0, nil, "invalid ciphertext: could not decode base64"
	}
	return n, sealed, ""
}

// associatedData decodes the field of that name. Vault calls bad base64 in it an internal error.
func associatedData(f *fields) ([]byte, *reply) {
	aad, err := base64.StdEncoding.DecodeString(f.text("associated_data"))
	if err != nil {
		bad := refuse(http.StatusInternalServerError,
			wrapped("unable to get associated_data/additional_data from factory[0]: "+err.Error()))
		return nil, &bad
	}
	return aad, nil
}

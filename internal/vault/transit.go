// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// Key is what Vault says of a transit key.
type Key struct {
	// Latest is the newest version, counted from 1.
	Latest int
	// Created holds the creation time of every version that may decrypt; Vault
	// reports whole seconds.
	Created map[int]time.Time
}

// ReadKey reads a key's versions. It needs "read" on <mount>/keys/<name>; an
// error of class [fault.Denied] may mean just that.
func (c *Client) ReadKey(ctx context.Context, name string) (Key, error) {
	call := c.begin(call{
		operation:  "read_key",
		what:       "reading key " + c.engine + "/" + name,
		path:       c.mount + "/keys/" + name,
		capability: "read",
	})
	var key Key
	err := c.read(ctx, call, func(data map[string]any) (failure *fault.Error) {
		key, failure = decodeKey(call, data)
		return failure
	})
	return key, err
}

func decodeKey(call call, data map[string]any) (Key, *fault.Error) {
	key := Key{
		Latest:  number(data["latest_version"]),
		Created: make(map[int]time.Time),
	}
	versions, _ := data["keys"].(map[string]any)
	for v, created := range versions {
		n, err := strconv.Atoi(v)
		if err != nil {
			return Key{}, call.unusable("a key version is not a number")
		}
		// Asymmetric keys have an object here; they are refused below.
		if seconds := number(created); seconds > 0 {
			key.Created[n] = time.Unix(int64(seconds), 0)
		}
	}
	if key.Latest < 1 {
		return Key{}, call.unusable("it has no latest_version")
	}
	if kind, _ := data["type"].(string); data["supports_encryption"] == false || len(key.Created) == 0 {
		return Key{}, call.fail(fault.Invalid, "a key of type "+printable(kind)+" cannot be used; make one of type aes256-gcm96")
	}
	return key, nil
}

// Encrypt encrypts plaintext with one version of a key, or with the newest if
// version is 0, and returns the ciphertext in transit's form (vault:vN:…) with
// its version. Associated data, if not empty, is needed to decrypt it. It needs
// "update" on <mount>/encrypt/<name>.
func (c *Client) Encrypt(ctx context.Context, name string, version int, plaintext, associatedData []byte) (ciphertext []byte, used int, err error) {
	call := c.begin(call{
		operation:  "encrypt",
		what:       "encrypting with " + c.engine + "/" + name,
		path:       c.mount + "/encrypt/" + name,
		capability: "update",
	})
	body, err := json.Marshal(struct {
		Plaintext      []byte `json:"plaintext"` // encoding/json writes base64, as transit wants it
		AssociatedData []byte `json:"associated_data,omitempty"`
		KeyVersion     int    `json:"key_version,omitempty"`
	}{plaintext, associatedData, version})
	if err != nil {
		return nil, 0, err
	}
	err = c.write(ctx, call, body, func(data map[string]any) *fault.Error {
		text, _ := data["ciphertext"].(string)
		got, ok := CiphertextVersion([]byte(text))
		if !ok {
			return call.unusable("its ciphertext does not begin with vault:v<version>:")
		}
		if version != 0 && got != version {
			return call.unusable("it used version " + strconv.Itoa(got) + " where " + strconv.Itoa(version) + " was asked for")
		}
		ciphertext, used = []byte(text), got
		return nil
	})
	return ciphertext, used, err
}

// Decrypt returns the plaintext of a ciphertext in transit's form that was made
// with the same associated data. It needs "update" on <mount>/decrypt/<name>.
func (c *Client) Decrypt(ctx context.Context, name string, ciphertext, associatedData []byte) ([]byte, error) {
	call := c.begin(call{
		operation:  "decrypt",
		what:       "decrypting with " + c.engine + "/" + name,
		path:       c.mount + "/decrypt/" + name,
		capability: "update",
	})
	body, err := json.Marshal(struct {
		Ciphertext     string `json:"ciphertext"`
		AssociatedData []byte `json:"associated_data,omitempty"`
	}{string(ciphertext), associatedData})
	if err != nil {
		return nil, err
	}
	var plaintext []byte
	err = c.write(ctx, call, body, func(data map[string]any) *fault.Error {
		text, ok := data["plaintext"].(string)
		if !ok {
			return call.unusable("it has no plaintext")
		}
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return call.unusable("its plaintext is not base64")
		}
		plaintext = decoded
		return nil
	})
	return plaintext, err
}

// CiphertextVersion reads the key version off a ciphertext's vault:vN: prefix.
func CiphertextVersion(ciphertext []byte) (version int, ok bool) {
	rest, ok := strings.CutPrefix(string(ciphertext), "vault:v")
	if !ok {
		return 0, false
	}
	digits, _, ok := strings.Cut(rest, ":")
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || v < 1 || strconv.FormatInt(v, 10) != digits {
		return 0, false
	}
	return int(v), true
}

// number reads a JSON number, which vault-client-go leaves as json.Number; 0 if
// it is none.
func number(v any) int {
	n, ok := v.(json.Number)
	if !ok {
		return 0
	}
	i, err := n.Int64()
	if err != nil {
		return 0
	}
	return int(i)
}

// printable passes a key type on only if it looks like one.
func printable(kind string) string {
	for _, r := range kind {
		if !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '_') {
			return "unknown"
		}
	}
	if kind == "" || len(kind) > 32 {
		return "unknown"
	}
	return kind
}

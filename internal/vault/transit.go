// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/vault-client-go"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// Key is what Vault reports about a transit key.
type Key struct {
	// Latest is the newest version, counted from 1.
	Latest int
	// Created holds the creation time of every version that may decrypt; Vault
	// reports whole seconds.
	Created map[int]time.Time
}

// ReadKey reads a key's versions. It needs "read" on <mount>/keys/<name>; an
// error of class [fault.Denied] may mean only that. [fault.KeyLost] means that
// nothing of this name was found, which is not yet Vault's word that the key is
// gone: other engines answer so too.
func (c *Client) ReadKey(ctx context.Context, name string) (Key, error) {
	call := c.onKey("read_key", "reading key", "keys", name, nil)
	call.missing = "the key does not exist"
	return ask(ctx, c, call, decodeKey)
}

// MayDecrypt returns nil if Vault would decrypt with a key for this token: it sends
// a ciphertext that no key has made, and Vault must object to that.
func (c *Client) MayDecrypt(ctx context.Context, name string) error {
	madeUp := "vault:v1:" + base64.StdEncoding.EncodeToString(make([]byte, 28))
	_, err := c.Decrypt(ctx, name, []byte(madeUp), nil)
	switch fault.ClassOf(err) {
	case fault.Invalid, fault.VersionTooOld:
		return nil
	}
	return err
}

// MayCreate reports whether encrypting with a key that does not exist would create
// it. It needs "update" on sys/capabilities-self, which Vault's default policy
// grants.
func (c *Client) MayCreate(ctx context.Context, name string) (bool, error) {
	path := c.mount + "/encrypt/" + name
	return ask(ctx, c, call{
		operation: "capabilities",
		what:      "asking for the capabilities on " + path,
		path:      "sys/capabilities-self",
		body: marshal(struct {
			Paths []string `json:"paths"`
		}{[]string{path}}),
		option: vault.WithRequestCallbacks(markIdempotent),
	}, func(a answer) (bool, *fault.Error) {
		granted, ok := a.Data[path].([]any)
		if !ok {
			return false, unusable("no capabilities")
		}
		return slices.Contains(granted, any("create")) || slices.Contains(granted, any("root")), nil
	})
}

// onKey describes a call about one transit key.
func (c *Client) onKey(operation, doing, route, name string, body []byte) call {
	return call{
		operation: operation,
		what:      doing + " " + c.engine + "/" + name,
		path:      c.mount + "/" + route + "/" + name,
		body:      body,
		option:    vault.WithRequestCallbacks(markIdempotent),
	}
}

// keyType is the form of the key types that an error may quote.
var keyType = regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)

func decodeKey(a answer) (Key, *fault.Error) {
	key := Key{Latest: number(a.Data["latest_version"]), Created: make(map[int]time.Time)}
	versions, _ := a.Data["keys"].(map[string]any)
	for v, created := range versions {
		n, err := strconv.Atoi(v)
		if err != nil {
			return Key{}, unusable("a key version is not a number")
		}
		// Asymmetric keys have an object here; they are refused below.
		if seconds := number(created); seconds > 0 {
			key.Created[n] = time.Unix(int64(seconds), 0)
		}
	}
	if key.Latest < 1 {
		return Key{}, unusable("no latest_version")
	}
	derived := a.Data["derived"] == true
	if derived || a.Data["supports_encryption"] == false || len(key.Created) == 0 {
		kind, _ := a.Data["type"].(string)
		if !keyType.MatchString(kind) {
			kind = "unknown"
		}
		if derived {
			kind += ", derived,"
		}
		return Key{}, fault.Errorf(fault.KeyUnusable, "key type %s is not supported; create a key of type aes256-gcm96, not derived", kind)
	}
	return key, nil
}

// Item is a plaintext to encrypt or a ciphertext to decrypt.
type Item struct {
	// Data is the plaintext, or the ciphertext in transit's form (vault:vN:…).
	Data []byte
	// Version is the key version to encrypt with; 0 means the newest.
	Version int
	// AssociatedData, if not empty, is bound into the ciphertext, and is needed to
	// decrypt it.
	AssociatedData []byte
}

// Outcome is what became of an [Item]: its ciphertext or plaintext, or why there is
// none.
type Outcome struct {
	Data []byte
	Err  error
}

// Encrypt encrypts plaintext with one version of a key, or with the newest if
// version is 0, and returns the ciphertext in transit's form (vault:vN:…) with
// its version. Associated data, if not empty, is needed to decrypt it. It needs
// "update" on <mount>/encrypt/<name>.
func (c *Client) Encrypt(ctx context.Context, name string, version int, plaintext, associatedData []byte) (ciphertext []byte, used int, err error) {
	item := Item{plaintext, version, associatedData}
	ciphertext, err = ask(ctx, c, c.encryption(name, marshal(item.toEncrypt())), func(a answer) ([]byte, *fault.Error) {
		return item.encrypted(a.Data)
	})
	if err == nil {
		used, _ = CiphertextVersion(ciphertext)
	}
	return ciphertext, used, err
}

// Decrypt returns the plaintext of a ciphertext in transit's form that was made
// with the same associated data. It needs "update" on <mount>/decrypt/<name>.
func (c *Client) Decrypt(ctx context.Context, name string, ciphertext, associatedData []byte) ([]byte, error) {
	item := Item{Data: ciphertext, AssociatedData: associatedData}
	return ask(ctx, c, c.decryption(name, marshal(item.toDecrypt())), func(a answer) ([]byte, *fault.Error) {
		return item.decrypted(a.Data)
	})
}

// EncryptBatch encrypts all items in one call. There is one outcome for each, in
// the same order: an item that fails does not fail the others. An error is of the
// whole call.
func (c *Client) EncryptBatch(ctx context.Context, name string, items []Item) ([]Outcome, error) {
	return batch(ctx, c, c.encryption(name, batchBody(items, Item.toEncrypt)), items, Item.encrypted)
}

// DecryptBatch is EncryptBatch for ciphertexts.
func (c *Client) DecryptBatch(ctx context.Context, name string, items []Item) ([]Outcome, error) {
	return batch(ctx, c, c.decryption(name, batchBody(items, Item.toDecrypt)), items, Item.decrypted)
}

func (c *Client) encryption(name string, body []byte) call {
	return c.onKey("encrypt", "encrypting with", "encrypt", name, body)
}

func (c *Client) decryption(name string, body []byte) call {
	return c.onKey("decrypt", "decrypting with", "decrypt", name, body)
}

func (i Item) toEncrypt() any {
	return struct {
		Plaintext      []byte `json:"plaintext"` // encoding/json writes base64, as transit wants it
		AssociatedData []byte `json:"associated_data,omitempty"`
		KeyVersion     int    `json:"key_version,omitempty"`
	}{i.Data, i.AssociatedData, i.Version}
}

func (i Item) toDecrypt() any {
	return struct {
		Ciphertext     string `json:"ciphertext"`
		AssociatedData []byte `json:"associated_data,omitempty"`
	}{string(i.Data), i.AssociatedData}
}

// encrypted reads the ciphertext of i from an answer.
func (i Item) encrypted(data map[string]any) ([]byte, *fault.Error) {
	text, _ := data["ciphertext"].(string)
	used, ok := CiphertextVersion([]byte(text))
	if !ok {
		return nil, unusable("the ciphertext does not begin with vault:v<version>:")
	}
	if i.Version != 0 && used != i.Version {
		return nil, unusable(fmt.Sprintf("key version %d was used instead of %d", used, i.Version))
	}
	return []byte(text), nil
}

// decrypted reads the plaintext of i from an answer.
func (i Item) decrypted(data map[string]any) ([]byte, *fault.Error) {
	text, ok := data["plaintext"].(string)
	if !ok {
		return nil, unusable("no plaintext")
	}
	plaintext, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, unusable("the plaintext is not base64")
	}
	return plaintext, nil
}

func batchBody(items []Item, form func(Item) any) []byte {
	forms := make([]any, len(items))
	for i, item := range items {
		forms[i] = form(item)
	}
	return marshal(struct {
		Items []any `json:"batch_input"`
	}{forms})
}

// BatchRefused is the error of a batch that Vault, or something before it, did not
// take. It may take the items alone: a policy can forbid batch_input, a proxy can
// limit the size of a body. Its class is that of the refusal.
type BatchRefused struct{ reason *fault.Error }

func (b *BatchRefused) Error() string { return b.reason.Error() }
func (b *BatchRefused) Unwrap() error { return b.reason }

// batch makes one call for several items. If one of them fails, Vault answers 400
// or 500 for all, with the results of each.
func batch(ctx context.Context, c *Client, call call, items []Item, read func(Item, map[string]any) ([]byte, *fault.Error)) ([]Outcome, error) {
	refused := false
	call.rescue = func(err error) (a answer, _ error) {
		a, refused = results(err)
		if a != nil {
			err = nil
		}
		return a, err
	}
	outcomes, err := ask(ctx, c, call, func(a answer) ([]Outcome, *fault.Error) {
		results, _ := a.Data["batch_results"].([]any)
		if len(results) != len(items) {
			refused = true
			return nil, unusable(fmt.Sprintf("%d results for a batch of %d", len(results), len(items)))
		}
		outcomes := make([]Outcome, len(items))
		for i, item := range items {
			result, _ := results[i].(map[string]any)
			var failure *fault.Error
			if said := result["error"]; said != nil && said != "" {
				text, _ := said.(string)
				failure = explainItem(text)
			} else {
				outcomes[i].Data, failure = read(item, result)
			}
			if failure != nil {
				outcomes[i].Err = c.failed(call, failure)
			}
		}
		return outcomes, nil
	})
	var failure *fault.Error
	if errors.As(err, &failure) && refused {
		return nil, &BatchRefused{failure}
	}
	return outcomes, err
}

var versionPrefix = regexp.MustCompile(`^vault:v([1-9][0-9]*):`)

// CiphertextVersion reads the key version from a ciphertext's vault:vN: prefix.
func CiphertextVersion(ciphertext []byte) (version int, ok bool) {
	if found := versionPrefix.FindSubmatch(ciphertext); found != nil {
		if v, err := strconv.ParseInt(string(found[1]), 10, 32); err == nil {
			return int(v), true
		}
	}
	return 0, false
}

// number reads a JSON number, which vault-client-go leaves as json.Number; 0 if
// v is none.
func number(v any) int {
	n, _ := v.(json.Number)
	if i, err := n.Int64(); err == nil {
		return int(i)
	}
	return 0
}

// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/hashicorp/vault-client-go"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// call describes one request, for vault-client-go, metrics and error texts.
type call struct {
	operation string // metric label
	what      string // "encrypting with transit/key"
	path      string // API path without /v1/
	body      []byte // what to write; nil to read
	option    vault.RequestOption
	refused   string // what a refusal means where it is not about a policy
	missing   string // what an empty 404 means; "" if it means nothing
	// rescue turns an error into an answer if there is one in it; nil never does.
	rescue func(error) (answer, error)
}

// answer is what vault-client-go returns; nil for an empty body.
type answer = *vault.Response[map[string]any]

func (c call) send(ctx context.Context, api *vault.Client) (answer, error) {
	if c.body == nil {
		return api.Read(ctx, apiPrefix+c.path, c.option)
	}
	return api.WriteFromBytes(ctx, apiPrefix+c.path, c.body, c.option)
}

// ask makes a call, decodes the answer and counts the call. A nil decode expects
// no answer. The reason of decode's error is the end of ask's.
func ask[T any](ctx context.Context, c *Client, call call, decode func(answer) (T, *fault.Error)) (T, error) {
	start := time.Now()
	var none, result T
	var failure *fault.Error
	response, err := call.send(ctx, c.api())
	if err != nil && call.rescue != nil {
		response, err = call.rescue(err)
	}
	switch {
	case err != nil:
		failure = c.explain(ctx, call, err)
	case decode == nil:
	case response == nil || response.Data == nil && response.Auth == nil:
		failure = unusable("no data")
	default:
		result, failure = decode(response)
	}
	c.metrics.observe(call.operation, failure, time.Since(start))
	if failure == nil {
		return result, nil
	}
	return none, c.failed(call, failure)
}

// failed is the error of a call, or of one item of a batch.
func (c *Client) failed(call call, failure *fault.Error) error {
	return fault.Errorf(failure.Class, "%s at %s: %s", call.what, c.Address(), failure.Reason)
}

// unusable is the error for an answer that Vault's API does not allow.
func unusable(why string) *fault.Error {
	return fault.Errorf(fault.Unavailable, "unexpected response from Vault: %s", why)
}

// marshal writes JSON; structs of strings, bytes and numbers cannot fail.
func marshal(body any) []byte {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return text
}

// markIdempotent lets net/http repeat a POST whose pooled connection turns out
// to be dead; an empty value is never sent (net/http Transport's documentation).
func markIdempotent(req *http.Request) { req.Header["Idempotency-Key"] = nil }

// markForProxy sets the header that the API proxy of Vault Agent can require
// (require_request_header), and that a web page in a browser cannot set.
func markForProxy(req *http.Request) { req.Header.Set("X-Vault-Request", "true") }

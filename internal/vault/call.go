// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault-client-go"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// nodes are all servers of one Vault, at least one. It is safe for concurrent use.
// There is a client for each, because vault-client-go supports one address.
type nodes struct {
	all []*vault.Client
	// turn only grows, so a late failure cannot skip the node that is current now.
	turn atomic.Uint64
}

// current returns the node to call now, and the number of its turn.
func (n *nodes) current() (*vault.Client, uint64) {
	turn := n.turn.Load()
	return n.all[turn%uint64(len(n.all))], turn
}

// call describes one request, for vault-client-go, metrics and error texts.
type call struct {
	operation string // metric label
	what      string // "encrypting with transit/key"
	path      string // API path without /v1/
	body      []byte // what to write; nil to read
	option    vault.RequestOption
	refused   string // what a refusal means where it is not about a policy
}

// answer is what vault-client-go returns; nil for an empty body.
type answer = *vault.Response[map[string]any]

func (c call) send(ctx context.Context, api *vault.Client) (answer, error) {
	if c.body == nil {
		return api.Read(ctx, apiPrefix+c.path, c.option)
	}
	return api.WriteFromBytes(ctx, apiPrefix+c.path, c.body, c.option)
}

// ask makes a call to the current node, decodes the answer, counts the call and
// chooses the node for the next one. A nil decode expects no answer. The reason
// of decode's error is the end of ask's.
func ask[T any](ctx context.Context, c *Client, call call, decode func(answer) (T, *fault.Error)) (T, error) {
	node, turn := c.nodes().current()
	// A deadline that has already passed says nothing about the node.
	asked := ctx.Err() == nil
	start := time.Now()
	var none, result T
	var failure *fault.Error
	switch response, err := call.send(ctx, node); {
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
	// Vault counts rate limit quotas on each node, so trying the next one would
	// bypass the operator's limit
	// (developer.hashicorp.com/vault/docs/concepts/resource-quotas).
	if asked && failure.Class.Transient() && failure.Class != fault.Throttled {
		// Of many calls that fail at one node, only the first moves on.
		c.nodes().turn.CompareAndSwap(turn, turn+1)
	}
	return none, fault.Errorf(failure.Class, "%s at %s: %s", call.what, node.Configuration().Address, failure.Reason)
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

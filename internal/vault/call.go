// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"net/http"
	"time"

	"github.com/hashicorp/vault-client-go"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// call is one request to one node, described for metrics and error texts.
type call struct {
	node       node
	turn       uint64 // node's
	operation  string // metric label
	what       string // "encrypting with transit/key"
	path       string // API path without /v1/
	capability string // what a policy must grant on path
	refused    string // what a refusal means where it is not about a policy
}

// begin chooses the node for a call.
func (c *Client) begin(call call) call {
	call.node, call.turn = c.nodes().current()
	return call
}

// fail makes the error of a call.
func (c call) fail(class fault.Class, reason string) *fault.Error {
	return fault.Errorf(class, "%s at %s: %s", c.what, c.node.address, reason)
}

// unusable is the error for an answer that Vault's API does not allow.
func (c call) unusable(why string) *fault.Error {
	return c.fail(fault.Unavailable, "the answer is not one of Vault's for this call: "+why)
}

// answer is what vault-client-go returns; nil for an empty body.
type answer = *vault.Response[map[string]any]

// do runs one request through vault-client-go, takes its result out with decode,
// counts it, explains its error and draws the conclusion for the next call.
func (c *Client) do(ctx context.Context, call call, request func() (answer, error), decode func(answer) *fault.Error) error {
	// A deadline that has passed already says nothing about the node.
	asked := ctx.Err() == nil
	start := time.Now()
	failure := c.attempt(ctx, call, request, decode)
	c.metrics.observe(call.operation, failure, time.Since(start))
	if failure == nil {
		return nil
	}
	if asked && speaksAgainstNode(failure.Class) {
		c.nodes().pass(call.turn)
	}
	return failure
}

func (c *Client) attempt(ctx context.Context, call call, request func() (answer, error), decode func(answer) *fault.Error) *fault.Error {
	resp, err := request()
	if err != nil {
		return c.explain(ctx, call, err)
	}
	return decode(resp)
}

func (c *Client) read(ctx context.Context, call call, decode func(data map[string]any) *fault.Error) error {
	return c.do(ctx, call, func() (answer, error) {
		return call.node.api.Read(ctx, apiPrefix+call.path)
	}, withData(call, decode))
}

func (c *Client) write(ctx context.Context, call call, body []byte, decode func(data map[string]any) *fault.Error) error {
	return c.do(ctx, call, func() (answer, error) {
		return call.node.api.WriteFromBytes(ctx, apiPrefix+call.path, body, vault.WithRequestCallbacks(markIdempotent))
	}, withData(call, decode))
}

// withData decodes an answer that consists of data.
func withData(call call, decode func(data map[string]any) *fault.Error) func(answer) *fault.Error {
	return func(resp answer) *fault.Error {
		if resp == nil || resp.Data == nil {
			return call.unusable("it is empty")
		}
		return decode(resp.Data)
	}
}

// markIdempotent lets net/http repeat a POST whose pooled connection turns out
// to be dead; an empty value is never sent (net/http Transport's documentation).
func markIdempotent(req *http.Request) { req.Header["Idempotency-Key"] = nil }

// markForProxy sets the header that the API proxy of Vault Agent can insist on
// (require_request_header), and that a page in a browser cannot set.
func markForProxy(req *http.Request) { req.Header.Set("X-Vault-Request", "true") }

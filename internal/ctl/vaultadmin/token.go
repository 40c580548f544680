// SPDX-License-Identifier: Apache-2.0

package vaultadmin

import (
	"context"
	"errors"
	"net/http"
)

// Token is a token for Trousseau. Formatting it shows only the accessor.
type Token struct {
	// Accessor identifies the token without disclosing it, and can revoke it.
	Accessor string

	id func() string
}

// ID returns the token itself, for the one place that stores it.
func (t Token) ID() string { return t.id() }

// TokenOptions describe a new token.
type TokenOptions struct {
	// Policies are in addition to Vault's default policy.
	Policies []string
	// Period is the renewal period in Vault's format; "" for a token without one.
	Period string
	// TTL is the initial lifetime; "" is Vault's default.
	TTL string
	// Orphan tokens stay valid when the token that created them ends.
	Orphan bool
}

// CreateToken creates a token.
func (c *Client) CreateToken(ctx context.Context, o TokenOptions) (Token, error) {
	path := "auth/token/create"
	if o.Orphan {
		path = "auth/token/create-orphan"
	}
	body := map[string]any{"policies": o.Policies, "display_name": "trousseau"}
	if o.Period != "" {
		body["period"] = o.Period
	}
	if o.TTL != "" {
		body["ttl"] = o.TTL
	}
	resp, err := c.api().Write(ctx, "/v1/"+path, body)
	if err != nil {
		return Token{}, c.explain("creating a token with", "update", path, err)
	}
	if resp == nil || resp.Auth == nil || resp.Auth.ClientToken == "" || resp.Auth.Accessor == "" {
		return Token{}, errors.New("creating a token: vault returned no accessor: batch tokens have none, so set the token type to service")
	}
	id := resp.Auth.ClientToken
	return Token{Accessor: resp.Auth.Accessor, id: func() string { return id }}, nil
}

// Info is what Vault says about a token.
type Info struct {
	// Accessor is "" for a batch token, which cannot be revoked.
	Accessor string
	// Policies include those of the token's entity.
	Policies []string
	// Orphan tokens have no parent.
	Orphan bool
}

// Uses reports whether token is the client's own.
func (c *Client) Uses(token string) bool { return token == c.config.token() }

// Self looks up the client's own token.
func (c *Client) Self(ctx context.Context) (Info, error) {
	data, err := c.Read(ctx, "auth/token/lookup-self")
	return info(data), err
}

// Lookup looks up a token. It asks with the client's token first, because a request
// with the token itself could spend its last use. The cause of the error is Unknown if
// the token is revoked or expired. The error is [Denied] if Vault tells neither of
// them.
func (c *Client) Lookup(ctx context.Context, token string) (Info, error) {
	data, err := c.Write(ctx, "auth/token/lookup", map[string]any{"token": token})
	if !Denied(err) || CauseOf(err) != "" {
		return info(data), err
	}
	own, err := Dial(c.config.WithToken(token))
	if err != nil {
		return Info{}, errors.New("the stored token is not a token: it holds characters that an HTTP header cannot carry")
	}
	found, err := own.Self(ctx)
	if CauseOf(err) == Dead {
		err = &Error{Status: http.StatusForbidden, Cause: Unknown, text: "the token is revoked or expired"}
	}
	return found, err
}

// LookupAccessor looks up the token of an accessor. The cause of the error is Unknown
// if there is none.
func (c *Client) LookupAccessor(ctx context.Context, accessor string) (Info, error) {
	data, err := c.Write(ctx, "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
	return info(data), err
}

func info(data map[string]any) Info {
	var i Info
	i.Accessor, _ = data["accessor"].(string)
	i.Orphan, _ = data["orphan"].(bool)
	for _, field := range []string{"policies", "identity_policies"} {
		list, _ := data[field].([]any)
		for _, policy := range list {
			if name, ok := policy.(string); ok {
				i.Policies = append(i.Policies, name)
			}
		}
	}
	return i
}

// Revoke revokes the token of an accessor, and its children.
func (c *Client) Revoke(ctx context.Context, accessor string) error {
	_, err := c.Write(ctx, "auth/token/revoke-accessor", map[string]any{"accessor": accessor})
	return err
}

// SPDX-License-Identifier: Apache-2.0

package vaultadmin

import (
	"context"
	"errors"
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

// AccessorOf looks up a token's accessor, first with the token itself, then as the
// administrator. It is "" if Vault denies both, as it does for a token that is
// revoked or expired.
func (c *Client) AccessorOf(ctx context.Context, token string) (string, error) {
	own, err := Dial(c.config.WithToken(token))
	if err != nil {
		return "", errors.New("the stored token is not a token: it holds characters that an HTTP header cannot carry")
	}
	data, err := own.Read(ctx, "auth/token/lookup-self")
	if Denied(err) {
		data, err = c.Write(ctx, "auth/token/lookup", map[string]any{"token": token})
		if gone(err) {
			return "", nil
		}
	}
	if err != nil {
		return "", err
	}
	accessor, _ := data["accessor"].(string)
	return accessor, nil
}

// Policies returns the policies of an accessor's token; known is false if there is no
// such token.
func (c *Client) Policies(ctx context.Context, accessor string) (policies []string, known bool, err error) {
	data, err := c.Write(ctx, "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
	if CauseOf(err) == Unknown || gone(err) && !Denied(err) {
		return nil, false, nil
	}
	list, _ := data["policies"].([]any)
	for _, policy := range list {
		if name, ok := policy.(string); ok {
			policies = append(policies, name)
		}
	}
	return policies, err == nil, err
}

// Revoke revokes the token of an accessor, and its children.
func (c *Client) Revoke(ctx context.Context, accessor string) error {
	_, err := c.Write(ctx, "auth/token/revoke-accessor", map[string]any{"accessor": accessor})
	return err
}

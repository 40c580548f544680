// SPDX-License-Identifier: Apache-2.0

package vaultadmin

import (
	"context"
	"errors"
)

// Token is a token for Trousseau. Formatting it shows the accessor alone.
type Token struct {
	// Accessor names the token where it must not be shown; it can revoke it.
	Accessor string

	id func() string
}

// ID is the token itself, for the one place that stores it.
func (t Token) ID() string { return t.id() }

// TokenOptions are what a new token is to be.
type TokenOptions struct {
	// Policies are beside Vault's default.
	Policies []string
	// Period is how long it lives between renewals, as Vault writes durations;
	// "" for a token that is not periodic.
	Period string
	// TTL is how long it lives at first; "" leaves it to Vault.
	TTL string
	// Orphan tokens survive the token that has made them.
	Orphan bool
}

// CreateToken makes a token.
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
		return Token{}, errors.New("creating a token: vault answered without a token and its accessor; batch tokens have none, so let the token's type be service")
	}
	id := resp.Auth.ClientToken
	return Token{Accessor: resp.Auth.Accessor, id: func() string { return id }}, nil
}

// AccessorOf asks Vault for a token's accessor, by the token's own right to look
// itself up, or else by the administrator's. It is "" if Vault denies both, as it
// does of a token that is dead.
func (c *Client) AccessorOf(ctx context.Context, token string) (string, error) {
	own, err := Dial(c.config.WithToken(token))
	if err != nil {
		return "", errors.New("what is stored as the token is none: it holds characters that no HTTP header can carry")
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

// Policies returns those of the token of an accessor; known is false if there is
// no such token.
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

// Revoke ends the token of an accessor, and its children.
func (c *Client) Revoke(ctx context.Context, accessor string) error {
	_, err := c.Write(ctx, "auth/token/revoke-accessor", map[string]any{"accessor": accessor})
	return err
}

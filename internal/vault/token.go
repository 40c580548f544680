// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault-client-go"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// Token is what Vault says of the client's own token. It does not hold the
// token. The zero Token means that nothing is known of it.
type Token struct {
	// Accessor names the token without being one; batch tokens have none.
	Accessor string
	// Expires is when the token dies, by Vault's clock; zero if it never does.
	Expires time.Time
	// Asked is when Vault said so, by our clock.
	Asked time.Time
	// Left is what the token had left to live when Vault was asked, in whole
	// seconds. Unlike Expires it does not depend on how clocks differ.
	Left time.Duration
	// Lease is what it had left when it was made or last renewed.
	Lease time.Duration
	// Renewable reports whether Vault would extend the token's life on request.
	Renewable bool
	// Uses is how many requests the token is still good for; 0 is any number.
	Uses int
}

// Mints reports whether the client's token was made for it alone, by
// [Client.Login].
func (c *Client) Mints() bool { return c.credential.login != nil }

// Proxied reports whether the token is added by somebody else on the way.
func (c *Client) Proxied() bool { return c.credential.proxied }

// Login exchanges the credential for a token, where it is not one already. It
// comes before any other call, and not at the same time as one. A refusal has
// the class [fault.Denied].
func (c *Client) Login(ctx context.Context) (Token, error) {
	if !c.Mints() {
		return Token{}, nil
	}
	path := "auth/" + c.credential.path + "/login"
	call := c.begin(call{
		operation: "login",
		what:      "logging in by " + path,
		path:      path,
		refused:   "vault refuses the login; check the role, its bindings, and the secret ID, token or certificate shown",
	})
	var t Token
	err := c.do(ctx, call, func() (answer, error) {
		return call.node.api.WriteFromBytes(ctx, apiPrefix+path, c.credential.login(), c.inAuthNamespace())
	}, func(resp answer) *fault.Error {
		auth, failure := granted(call, resp)
		if failure != nil {
			return failure
		}
		if c.setToken(auth.ClientToken) != nil {
			return call.unusable("its token holds characters that no HTTP header can carry")
		}
		t = leased(auth)
		// Vault revokes no batch tokens; those have no accessor.
		c.revocable = auth.Accessor != ""
		return nil
	})
	return t, err
}

// LookupSelf asks Vault about the client's own token. It needs "read" on
// auth/token/lookup-self, which Vault's default policy grants.
func (c *Client) LookupSelf(ctx context.Context) (Token, error) {
	call := c.begin(call{
		operation:  "lookup_self",
		what:       "looking up the token",
		path:       "auth/token/lookup-self",
		capability: "read",
	})
	var t Token
	err := c.do(ctx, call, func() (answer, error) {
		return call.node.api.Read(ctx, apiPrefix+call.path, c.inAuthNamespace())
	}, withData(call, func(data map[string]any) (failure *fault.Error) {
		t, failure = decodeToken(call, data)
		return failure
	}))
	return t, err
}

// Renew extends the life of the client's token. It needs "update" on
// auth/token/renew-self, which Vault's default policy grants.
func (c *Client) Renew(ctx context.Context) (Token, error) {
	call := c.begin(call{
		operation:  "renew_self",
		what:       "renewing the token",
		path:       "auth/token/renew-self",
		capability: "update",
	})
	var t Token
	err := c.do(ctx, call, func() (answer, error) {
		return call.node.api.WriteFromBytes(ctx, apiPrefix+call.path, []byte("{}"), c.inAuthNamespace())
	}, func(resp answer) *fault.Error {
		auth, failure := granted(call, resp)
		if failure == nil {
			t = leased(auth)
		}
		return failure
	})
	return t, err
}

// Revoke ends the life of a token that [Client.Login] has got, unless it is a
// batch token; it leaves every other token alone. The client is of no use afterwards.
func (c *Client) Revoke(ctx context.Context) error {
	if !c.revocable {
		return nil
	}
	call := c.begin(call{
		operation:  "revoke_self",
		what:       "revoking the token",
		path:       "auth/token/revoke-self",
		capability: "update",
	})
	return c.do(ctx, call, func() (answer, error) {
		return call.node.api.WriteFromBytes(ctx, apiPrefix+call.path, []byte("{}"), c.inAuthNamespace())
	}, func(answer) *fault.Error { return nil })
}

// inAuthNamespace moves a call from the transit engine's namespace to the
// token's.
func (c *Client) inAuthNamespace() vault.RequestOption {
	return vault.WithNamespace(c.authNamespace)
}

func (c *Client) setToken(token string) error {
	for _, n := range c.nodes().all {
		if err := n.api.SetToken(token); err != nil {
			return errors.New("preparing a vault client: the token holds characters that no HTTP header can carry")
		}
	}
	return nil
}

// granted returns the part of an answer that grants a token.
func granted(call call, resp answer) (*vault.ResponseAuth, *fault.Error) {
	switch {
	case resp == nil || resp.Auth == nil:
		return nil, call.unusable("it grants no token")
	case resp.Auth.MFARequirement != nil:
		return nil, call.fail(fault.Denied, "vault asks for a second factor, which a daemon has not")
	case resp.Auth.ClientToken == "":
		return nil, call.unusable("it grants no token")
	}
	return resp.Auth, nil
}

func leased(auth *vault.ResponseAuth) Token {
	now, lease := time.Now(), time.Duration(auth.LeaseDuration)*time.Second
	t := Token{Accessor: auth.Accessor, Asked: now, Left: lease, Lease: lease, Renewable: auth.Renewable}
	if lease > 0 {
		t.Expires = now.Add(lease)
	}
	return t
}

func decodeToken(call call, data map[string]any) (Token, *fault.Error) {
	t := Token{Asked: time.Now(), Uses: number(data["num_uses"])}
	t.Accessor, _ = data["accessor"].(string)
	at, ok := data["expire_time"].(string)
	if !ok {
		return t, nil
	}
	var err error
	if t.Expires, err = time.Parse(time.RFC3339Nano, at); err != nil {
		return Token{}, call.unusable("its expire_time is not a time")
	}
	t.Renewable, _ = data["renewable"].(bool)
	t.Left = time.Duration(number(data["ttl"])) * time.Second
	granted := max(number(data["creation_time"]), number(data["last_renewal_time"]))
	t.Lease = t.Expires.Sub(time.Unix(int64(granted), 0)).Truncate(time.Second)
	return t, nil
}

// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hashicorp/vault-client-go"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// Token is what Vault reports about the client's own token. It does not hold
// the token. The zero Token means that nothing is known.
type Token struct {
	// Accessor identifies the token without being one; batch tokens have none.
	Accessor string
	// Expires is when the token expires, by Vault's clock; zero means never.
	Expires time.Time
	// Asked is when Vault reported this, by our clock.
	Asked time.Time
	// Left is the token's remaining lifetime at Asked, in whole seconds. Unlike
	// Expires it does not depend on clocks that agree.
	Left time.Duration
	// Lease is the lifetime it had when it was issued or last renewed.
	Lease time.Duration
	// Renewable reports whether Vault would extend the lifetime on request.
	Renewable bool
	// Uses is how many requests the token may still make; 0 means no limit.
	Uses int
}

// Mints reports whether [Client.Login] obtains a token for this client alone.
func (s *session) Mints() bool { return s.credential.login != nil }

// Proxied reports whether a Vault Agent or Vault Proxy adds the token.
func (s *session) Proxied() bool { return s.credential.given == nil && !s.Mints() }

// Login exchanges the credential for a token of all clients of one Dial, unless it
// already is one. Call it before any other method of theirs, and not concurrently
// with one. A refusal has the class [fault.Denied].
func (c *Client) Login(ctx context.Context) (Token, error) {
	if !c.Mints() {
		return Token{}, nil
	}
	path := "auth/" + c.credential.path + "/login"
	return ask(ctx, c, call{
		operation: "login",
		what:      "logging in through " + path,
		path:      path,
		body:      c.credential.login(),
		option:    vault.WithNamespace(c.authNamespace),
		refused:   "vault refused the login; check the role, its bindings, and the secret ID, JWT or certificate",
	}, func(a answer) (Token, *fault.Error) {
		token, failure := granted(a)
		if failure == nil && c.setToken(a.Auth.ClientToken) != nil {
			failure = unusable("the token contains characters that are invalid in an HTTP header")
		}
		// Vault cannot revoke batch tokens; those have no accessor.
		c.revocable = failure == nil && token.Accessor != ""
		return token, failure
	})
}

// LookupSelf asks Vault about the client's own token. It needs "read" on
// auth/token/lookup-self, which Vault's default policy grants.
func (c *Client) LookupSelf(ctx context.Context) (Token, error) {
	return ask(ctx, c, c.onToken("lookup_self", "looking up", nil), decodeToken)
}

// Renew extends the lifetime of the client's token. It needs "update" on
// auth/token/renew-self, which Vault's default policy grants.
func (c *Client) Renew(ctx context.Context) (Token, error) {
	return ask(ctx, c, c.onToken("renew_self", "renewing", []byte("{}")), granted)
}

// Revoke revokes a token that [Client.Login] obtained, unless it is a batch
// token, and does nothing to any other token. Do not use the clients afterwards.
func (c *Client) Revoke(ctx context.Context) error {
	if !c.revocable {
		return nil
	}
	_, err := ask[any](ctx, c, c.onToken("revoke_self", "revoking", []byte("{}")), nil)
	return err
}

// onToken describes a call about the client's own token. It is sent to the
// token's namespace, not to the transit engine's.
func (c *Client) onToken(operation, doing string, body []byte) call {
	return call{
		operation: operation,
		what:      doing + " the token",
		path:      "auth/token/" + strings.ReplaceAll(operation, "_", "-"),
		body:      body,
		option:    vault.WithNamespace(c.authNamespace),
	}
}

func (s *session) setToken(token string) error {
	for _, api := range s.apis() {
		if err := api.SetToken(token); err != nil {
			return errors.New("preparing a vault client: the token contains characters that are invalid in an HTTP header")
		}
	}
	return nil
}

// granted describes the token that an answer grants.
func granted(a answer) (Token, *fault.Error) {
	auth := a.Auth
	switch {
	case auth != nil && auth.MFARequirement != nil:
		return Token{}, fault.Errorf(fault.Denied, "vault requires MFA, which is not supported; use a role without it")
	case auth == nil || auth.ClientToken == "":
		return Token{}, unusable("it grants no token")
	}
	now, lease := time.Now(), time.Duration(auth.LeaseDuration)*time.Second
	t := Token{Accessor: auth.Accessor, Asked: now, Left: lease, Lease: lease, Renewable: auth.Renewable}
	if lease > 0 {
		t.Expires = now.Add(lease)
	}
	return t, nil
}

func decodeToken(a answer) (Token, *fault.Error) {
	if a.Data == nil {
		return Token{}, unusable("no data")
	}
	t := Token{Asked: time.Now(), Uses: number(a.Data["num_uses"])}
	t.Accessor, _ = a.Data["accessor"].(string)
	at, ok := a.Data["expire_time"].(string)
	if !ok {
		return t, nil
	}
	var err error
	if t.Expires, err = time.Parse(time.RFC3339Nano, at); err != nil {
		return Token{}, unusable("expire_time is not a time")
	}
	t.Renewable, _ = a.Data["renewable"].(bool)
	t.Left = time.Duration(number(a.Data["ttl"])) * time.Second
	issued := max(number(a.Data["creation_time"]), number(a.Data["last_renewal_time"]))
	t.Lease = t.Expires.Sub(time.Unix(int64(issued), 0)).Truncate(time.Second)
	return t, nil
}

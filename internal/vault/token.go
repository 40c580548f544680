// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"time"
)

// Token is what Vault says of the client's own token. It does not hold the
// token.
type Token struct {
	// Accessor names the token without being one; batch tokens have none.
	Accessor string
	// Expires is when the token dies; zero if it never does.
	Expires time.Time
}

// LookupSelf asks Vault about the client's own token. It needs "read" on
// auth/token/lookup-self, which Vault's default policy grants.
func (c *Client) LookupSelf(ctx context.Context) (Token, error) {
	call := call{
		operation:  "lookup_self",
		what:       "looking up the token",
		path:       "auth/token/lookup-self",
		capability: "read",
	}
	data, err := c.read(ctx, call)
	if err != nil {
		return Token{}, err
	}
	var t Token
	t.Accessor, _ = data["accessor"].(string)
	if at, ok := data["expire_time"].(string); ok {
		t.Expires, err = time.Parse(time.RFC3339Nano, at)
		if err != nil {
			return Token{}, c.unusable(call, "its expire_time is not a time")
		}
	}
	return t, nil
}

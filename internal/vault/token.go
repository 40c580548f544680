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
	call := c.begin(call{
		operation:  "lookup_self",
		what:       "looking up the token",
		path:       "auth/token/lookup-self",
		capability: "read",
	})
	var t Token
	err := c.read(ctx, call, func(data map[string]any) *Error {
		var expires time.Time
		if at, ok := data["expire_time"].(string); ok {
			var err error
			if expires, err = time.Parse(time.RFC3339Nano, at); err != nil {
				return call.unusable("its expire_time is not a time")
			}
		}
		accessor, _ := data["accessor"].(string)
		t = Token{Accessor: accessor, Expires: expires}
		return nil
	})
	return t, err
}

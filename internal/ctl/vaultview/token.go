// SPDX-License-Identifier: Apache-2.0

package vaultview

import (
	"context"
	"encoding/json"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Seconds is a duration in whole seconds, as Vault reports it.
type Seconds int64

// Duration converts s.
func (s Seconds) Duration() time.Duration { return time.Duration(s) * time.Second }

// Token is what Vault reports about a token, beyond [vault.Token].
type Token struct {
	Policies         []string   `json:"policies"`
	IdentityPolicies []string   `json:"identity_policies"`
	Type             string     `json:"type"`        // service or batch
	Expires          *time.Time `json:"expire_time"` // by Vault's clock; nil if never
	TTL              Seconds    `json:"ttl"`         // time left; 0 if it never expires
	Renewable        bool       `json:"renewable"`
	Uses             int        `json:"num_uses"`         // requests left; 0 is any number
	MaxTTL           Seconds    `json:"explicit_max_ttl"` // of the whole lifetime; 0 is no limit
	Period           Seconds    `json:"period"`           // what each renewal grants; 0 if it is not periodic
	BoundCIDRs       []string   `json:"bound_cidrs"`      // the networks that may use it; none: all
}

// Wraps reports whether a secret is a response-wrapping token. It must be asked before
// any other call with that token: a wrapping token has one use, and even a call that its
// policy forbids uses it up. This one does not. An error means that the answer does not
// tell.
func (v *View) Wraps(ctx context.Context, secret config.Secret) (bool, error) {
	body, err := json.Marshal(map[string]string{"token": secret.Reveal()})
	if err != nil {
		return false, err
	}
	err = v.Query(ctx, vault.Query{
		What: "asking whether it is a wrapping token", Path: "sys/wrapping/lookup", Namespace: v.config.Credential.Namespace,
		Body: body, Anonymous: true, Refused: "it is not one",
	}, &struct{}{})
	if fault.ClassOf(err) == fault.Denied {
		return false, nil
	}
	return err == nil, err
}

// TokenDetails asks about the client's own token. It needs "read" on
// auth/token/lookup-self; an error of class [fault.Denied] may mean only that.
func (v *View) TokenDetails(ctx context.Context) (t Token, err error) {
	err = v.Query(ctx, vault.Query{
		What: "looking up the token", Path: "auth/token/lookup-self", Namespace: v.config.Credential.Namespace,
	}, &t)
	return t, err
}

// Capabilities returns what the token may do on each path of a namespace, in the
// words of a policy; ["deny"] for nothing. It needs "update" on
// sys/capabilities-self, which Vault's default policy grants.
func (v *View) Capabilities(ctx context.Context, namespace string, paths []string) (granted map[string][]string, err error) {
	body, err := json.Marshal(map[string][]string{"paths": paths})
	if err != nil {
		return nil, err
	}
	err = v.Query(ctx, vault.Query{
		What: "asking for the token's capabilities", Path: "sys/capabilities-self", Namespace: namespace, Body: body,
	}, &granted)
	return granted, err
}

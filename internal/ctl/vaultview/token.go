// SPDX-License-Identifier: Apache-2.0

package vaultview

import (
	"context"
	"net/http"

	"github.com/trousseau-io/trousseau/internal/config"
)

// Login exchanges a credential for a token.
func (v *View) Login(ctx context.Context, c config.Credential) error {
	body := map[string]string{}
	switch c.Method {
	case config.AppRole:
		body["role_id"], body["secret_id"] = c.RoleID, c.SecretID.Reveal()
	case config.Kubernetes, config.JWT:
		body["jwt"] = c.JWT.Reveal()
		if c.Role != "" {
			body["role"] = c.Role
		}
	}
	var answer struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	if _, err := v.ask(ctx, http.MethodPost, v.authNamespace, "auth/"+c.Path+"/login", body, &answer); err != nil {
		return err
	}
	if answer.Auth.Token == "" {
		return errNotVault
	}
	v.token, v.minted = config.NewSecret(answer.Auth.Token), true
	return nil
}

// Revoke gives the token of Login back. A batch token cannot be: it dies.
func (v *View) Revoke(ctx context.Context) {
	_, _ = v.ask(ctx, http.MethodPost, v.authNamespace, "auth/token/revoke-self", struct{}{}, nil)
}

// Token is what auth/token/lookup-self says.
type Token struct {
	Policies       []string `json:"policies"`
	Identity       []string `json:"identity_policies"`
	Type           string   `json:"type"`
	TTL            int64    `json:"ttl"`
	Expires        *string  `json:"expire_time"`
	Renewable      bool     `json:"renewable"`
	Uses           int      `json:"num_uses"`
	ExplicitMaxTTL int64    `json:"explicit_max_ttl"`
	Period         int64    `json:"period"`
}

// LookUpSelf asks about the token itself.
func (v *View) LookUpSelf(ctx context.Context) (Token, error) {
	var answer struct {
		Data *Token `json:"data"`
	}
	_, err := v.ask(ctx, http.MethodGet, v.authNamespace, "auth/token/lookup-self", nil, &answer)
	if err == nil && answer.Data == nil {
		err = errNotVault
	}
	if err != nil {
		return Token{}, err
	}
	return *answer.Data, nil
}

// Capabilities returns what the token may do on each path.
func (v *View) Capabilities(ctx context.Context, namespace string, paths []string) (map[string][]string, error) {
	var answer struct {
		Data map[string][]string `json:"data"`
	}
	_, err := v.ask(ctx, http.MethodPost, namespace, "sys/capabilities-self", map[string]any{"paths": paths}, &answer)
	if err == nil && answer.Data == nil {
		err = errNotVault
	}
	return answer.Data, err
}

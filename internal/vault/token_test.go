// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

func TestLookupSelf(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := vaulttest.Start(t, vaulttest.Options{Now: func() time.Time { return now }})
	tests := map[string]struct {
		token   vaulttest.Token
		expires time.Time
	}{
		"expires":  {s.CreateToken(vaulttest.TokenOptions{TTL: time.Hour}), now.Add(time.Hour)},
		"periodic": {s.CreateToken(vaulttest.TokenOptions{Period: time.Minute}), now.Add(time.Minute)},
		"batch":    {s.CreateToken(vaulttest.TokenOptions{Type: vaulttest.Batch, TTL: time.Hour}), now.Add(time.Hour)},
		"never":    {s.CreateToken(vaulttest.TokenOptions{Policies: []string{"root"}}), time.Time{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := dial(t, s, func(cfg *vault.Config) { cfg.Credential = vault.Given(test.token.ID) }).LookupSelf(bounded(t))
			if err != nil {
				t.Fatal(err)
			}
			if got.Accessor != test.token.Accessor || !got.Expires.Equal(test.expires) || got.Expires.IsZero() != test.expires.IsZero() {
				t.Errorf("got %+v, want accessor %q and expiry %v", got, test.token.Accessor, test.expires)
			}
		})
	}
}

func TestLookupSelfRefused(t *testing.T) {
	s := vaulttest.Start(t)
	token := s.KMSToken("kek")
	c := dial(t, s, func(cfg *vault.Config) { cfg.Credential = vault.Given(token) })

	remove := s.Intercept(answer(http.StatusOK, `{"data":{"accessor":"a","expire_time":"tomorrow"}}`))
	_, err := c.LookupSelf(bounded(t))
	wantError(t, c, err, fault.Unavailable,
		"looking up the token at ADDRESS: unexpected response from Vault: expire_time is not a time")
	remove()

	s.Revoke(token)
	_, err = c.LookupSelf(bounded(t))
	wantError(t, c, err, fault.Denied,
		`looking up the token at ADDRESS: permission denied (403): the token is expired or revoked, or its policy lacks "read" on auth/token/lookup-self`)
}

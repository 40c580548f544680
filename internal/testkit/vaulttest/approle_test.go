// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

func TestSecretID(t *testing.T) {
	const refused = "invalid role or secret ID"
	for _, tt := range []struct {
		name    string
		options vaulttest.SecretIDOptions
		granted int // logins before it is refused
		spoil   func(s *vaulttest.Server, approle *vaulttest.AppRole, id string)
	}{
		{"one use", vaulttest.SecretIDOptions{NumUses: 1}, 1, nil},
		{"three uses", vaulttest.SecretIDOptions{NumUses: 3}, 3, nil},
		{"a minute", vaulttest.SecretIDOptions{TTL: time.Minute}, 5, func(s *vaulttest.Server, _ *vaulttest.AppRole, _ string) { s.Advance(time.Minute) }},
		{"destroyed", vaulttest.SecretIDOptions{}, 5, func(_ *vaulttest.Server, approle *vaulttest.AppRole, id string) { approle.DestroySecretID("kms", id) }},
		{"role deleted", vaulttest.SecretIDOptions{}, 5, func(_ *vaulttest.Server, approle *vaulttest.AppRole, _ string) { approle.DeleteRole("kms") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := vaulttest.Start(t)
			approle := s.EnableAppRole("", "approle")
			roleID := approle.SetRole("kms", vaulttest.AppRoleOptions{})
			id := approle.NewSecretID("kms", tt.options)
			body := fields{"role_id": " " + roleID + "\n", "secret_id": " " + id + "\n"} // Vault trims both
			c := newCaller(t, s, "")
			var last string
			for range tt.granted {
				last = clientToken(c.want(200, "POST", "auth/approle/login", body))
			}
			if tt.spoil != nil {
				tt.spoil(s, approle, id)
			}
			c.want(400, "POST", "auth/approle/login", body, refused)
			if !s.TokenAlive(last) {
				t.Error("the token died with its secret ID")
			}
		})
	}
}

func TestSecretIDInSnapshot(t *testing.T) {
	s := vaulttest.Start(t)
	approle := s.EnableAppRole("", "approle")
	body := fields{"role_id": approle.SetRole("kms", vaulttest.AppRoleOptions{}), "secret_id": approle.NewSecretID("kms", vaulttest.SecretIDOptions{NumUses: 1})}
	backup := s.Snapshot()
	c := newCaller(t, s, "")
	for range 2 {
		c.want(200, "POST", "auth/approle/login", body)
		c.want(400, "POST", "auth/approle/login", body)
		s.Restore(backup)
	}
}

func TestRoleID(t *testing.T) {
	s := vaulttest.Start(t)
	approle := s.EnableAppRole("", "approle")
	first := approle.SetRole("kms", vaulttest.AppRoleOptions{})
	secret := approle.NewSecretID("kms", vaulttest.SecretIDOptions{})
	other := approle.SetRole("other", vaulttest.AppRoleOptions{})
	if again := approle.SetRole("kms", vaulttest.AppRoleOptions{}); first == "" || again != first || other == first {
		t.Errorf("role IDs: got %q, then %q; of another role %q", first, again, other)
	}
	c := newCaller(t, s, "")
	c.want(200, "POST", "auth/approle/login", fields{"role_id": first, "secret_id": secret})
	c.want(400, "POST", "auth/approle/login", fields{"role_id": other, "secret_id": secret})

	if got := approle.SetRole("kms", vaulttest.AppRoleOptions{RoleID: "chosen", NoSecretID: true}); got != "chosen" {
		t.Errorf("chosen role ID: got %q", got)
	}
	c.want(400, "POST", "auth/approle/login", fields{"role_id": first, "secret_id": secret})
	c.want(200, "POST", "auth/approle/login", fields{"role_id": "chosen"})
	c.want(200, "POST", "auth/approle/login", fields{"role_id": "chosen", "secret_id": "x"})
}

// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"net/http"
	"strings"
	"time"
)

const kindAppRole = "approle"

// AppRole is an AppRole auth method: a role ID and a secret ID are exchanged for a token.
type AppRole struct{ AuthMethod }

// AppRoleOptions describes a role.
type AppRoleOptions struct {
	// Token is what a login yields. Parent, Namespace and NotRenewable cannot be chosen, Orphan is understood.
	Token TokenOptions
	// RoleID is the role's ID; empty means to keep the one it has, or to make one.
	RoleID string
	// NoSecretID lets in whoever knows the role ID (bind_secret_id=false).
	NoSecretID bool
}

// SecretIDOptions describes a secret ID. The zero value is good for ever.
type SecretIDOptions struct {
	// NumUses is how many logins it is good for; 0 means any number.
	NumUses int
	// TTL is how long it is good for; 0 means for ever. Vault removes the expired once a minute, the fake at once.
	TTL time.Duration
}

// appRole is what makes a role one of AppRole.
type appRole struct {
	id         string
	noSecretID bool
	secretIDs  map[string]secretID
}

type secretID struct {
	uses    int       // left; 0 means any number
	expires time.Time // zero means never
}

// EnableAppRole enables an AppRole method in a namespace ("" is the root), creating the namespace if need be. The path is
// without auth/; "approle" is the default of clients.
func (s *Server) EnableAppRole(namespace, path string) *AppRole {
	return &AppRole{s.enable(kindAppRole, namespace, path)}
}

// SetRole writes a role, in place of one of that name but with its secret IDs, and returns the role ID.
func (a *AppRole) SetRole(name string, options AppRoleOptions) (roleID string) {
	a.setRole(name, options.Token, func(r *role) {
		switch {
		case options.RoleID != "":
			r.appRole.id = options.RoleID
		case r.appRole.id == "":
			r.appRole.id = newUUID()
		}
		if r.appRole.secretIDs == nil {
			r.appRole.secretIDs = map[string]secretID{}
		}
		r.appRole.noSecretID = options.NoSecretID
		roleID = r.appRole.id
	})
	return roleID
}

// NewSecretID makes a secret ID for a role.
func (a *AppRole) NewSecretID(role string, options SecretIDOptions) string {
	id := newUUID()
	a.with(func(m *authMount) {
		entry := secretID{uses: options.NumUses}
		if options.TTL > 0 {
			entry.expires = a.store.now().Add(options.TTL)
		}
		m.role(role).appRole.secretIDs[id] = entry
	})
	a.store.secrets.add(id)
	return id
}

// DestroySecretID destroys a secret ID of a role. Tokens it was exchanged for live on. One that does not exist is no mistake.
func (a *AppRole) DestroySecretID(role, secretID string) {
	a.with(func(m *authMount) { delete(m.role(role).appRole.secretIDs, secretID) })
}

func (m *authMount) identifyAppRole(req *request) (identity, *reply) {
	roleID, secret := strings.TrimSpace(req.fields.text("role_id")), strings.TrimSpace(req.fields.text("secret_id"))
	if roleID == "" || req.method != http.MethodPost {
		// Vault looks first whether the role ID is locked out, and reads a body only if there may be one.
		return identity{}, refused(http.StatusInternalServerError, "failed to determine alias name from login request")
	}
	r := m.byRoleID(roleID)
	switch {
	case r == nil:
		return identity{}, refused(http.StatusBadRequest, "invalid role or secret ID")
	case r.appRole.noSecretID:
	case secret == "":
		return identity{}, refused(http.StatusBadRequest, "missing secret_id")
	case !r.appRole.use(secret, req.now):
		return identity{}, refused(http.StatusBadRequest, "invalid role or secret ID")
	}
	return identity{role: r, alias: roleID, metadata: map[string]string{"role_name": r.name}}, nil
}

func (m *authMount) byRoleID(id string) *role {
	for _, r := range m.roles {
		if r.appRole.id == id {
			return r
		}
	}
	return nil
}

// use reports whether a secret ID is good, and uses up one of its uses.
func (r *appRole) use(id string, now time.Time) bool {
	entry, ok := r.secretIDs[id]
	if !ok || !entry.expires.IsZero() && !now.Before(entry.expires) {
		return false
	}
	switch entry.uses {
	case 0:
	case 1:
		delete(r.secretIDs, id)
	default:
		entry.uses--
		r.secretIDs[id] = entry
	}
	return true
}

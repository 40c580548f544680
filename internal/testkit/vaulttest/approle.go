// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"net/http"
	"strings"
)

const kindAppRole = "approle"

// AppRole is an AppRole auth method: a role ID and a secret ID are exchanged for a token.
type AppRole struct{ AuthMethod }

// appRole holds the AppRole fields of a role.
type appRole struct {
	id        string
	secretIDs map[string]bool
}

// EnableAppRole enables an AppRole method in a namespace ("" is the root) and creates the namespace if it is
// missing. The path is without auth/; clients default to "approle".
func (s *Server) EnableAppRole(namespace, path string) *AppRole {
	return &AppRole{s.enable(kindAppRole, namespace, path)}
}

// SetRole creates or replaces a role, keeps its secret IDs, and returns the role ID. Token describes the tokens
// issued at login; Namespace and NotRenewable are not supported, and they are always orphans.
func (a *AppRole) SetRole(name string, token TokenOptions) (roleID string) {
	a.setRole(name, token, func(r *role) {
		if r.appRole.id == "" {
			r.appRole = appRole{id: newUUID(), secretIDs: map[string]bool{}}
		}
		roleID = r.appRole.id
	})
	return roleID
}

// NewSecretID creates a secret ID for a role. It can be used any number of times.
func (a *AppRole) NewSecretID(role string) string {
	id := newUUID()
	a.with(func(m *authMount) { m.role(role).appRole.secretIDs[id] = true })
	a.store.secrets.add(id)
	return id
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
	case secret == "":
		return identity{}, refused(http.StatusBadRequest, "missing secret_id")
	case !r.appRole.secretIDs[secret]:
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

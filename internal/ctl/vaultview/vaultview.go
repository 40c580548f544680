// SPDX-License-Identifier: Apache-2.0

// Package vaultview asks Vault what only trousseauctl doctor wants to know: the
// health of a node, the details of a token and of a key, and what a policy
// grants. It asks through the client that the daemon uses, so a diagnosis is of
// that client.
package vaultview

import (
	"context"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/upstream"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// View is one node of a Vault, as the daemon's client sees it. All errors are
// of type *[fault.Error]. The caller must Close it.
type View struct {
	*vault.Client
	config *config.Vault
}

// Dial makes a View of each address that v names, in their order. They share a
// token. It does no I/O, so an error means that v itself is wrong. The caller logs in
// with [vault.Client.Login] at one of them before asking anything but [View.Health],
// and closes one, which closes all.
func Dial(v *config.Vault) ([]*View, error) {
	clients, err := vault.Dial(upstream.Config(v))
	if err != nil {
		return nil, err
	}
	views := make([]*View, len(clients))
	for i, c := range clients {
		views[i] = &View{c, v}
	}
	return views, nil
}

// TokenAccepted reports whether Vault accepts a token that may not look itself up:
// false if Vault denies every call about the first key. An error other than a
// denial counts as acceptance; the next check reports it.
func (v *View) TokenAccepted(ctx context.Context) bool {
	name := v.config.KeyNames[0]
	_, err := v.Capabilities(ctx, v.config.Namespace, []string{v.keyPath(name)})
	if fault.ClassOf(err) == fault.Denied {
		_, err = v.KeyExists(ctx, name)
	}
	return fault.ClassOf(err) != fault.Denied
}

// notVault is the error for an answer that lacks what Vault always reports.
func (v *View) notVault(what string) error {
	return fault.Errorf(fault.Unavailable, "%s at %s: the answer is not one of Vault's; check what listens at this address", what, v.Address())
}

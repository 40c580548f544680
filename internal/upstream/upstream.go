// SPDX-License-Identifier: Apache-2.0

// Package upstream translates a configuration for package vault: the Vault to
// dial, the credential, and the associated data that ciphertexts are bound to.
package upstream

import (
	"fmt"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Config returns how to dial the Vault of v. The caller sets Metrics and
// Transport.
func Config(v *config.Vault) vault.Config {
	return vault.Config{
		Addresses:     append([]string{v.Address}, v.Addresses...),
		Namespace:     v.Namespace,
		Mount:         v.TransitPath,
		Credential:    credential(v.Credential),
		AuthNamespace: v.Credential.Namespace,
		CACert:        v.CACert,
		ServerName:    v.TLSServerName,
		ClientCert:    v.ClientCert,
		ClientKey:     []byte(v.ClientKey.Reveal()),
	}
}

func credential(c config.Credential) vault.Credential {
	switch c.Method {
	case config.TokenGiven:
		return vault.Given(c.Token.Reveal())
	case config.AppRole:
		return vault.AppRole(c.Path, c.RoleID, c.SecretID.Reveal())
	case config.Kubernetes, config.JWT:
		return vault.JWT(c.Path, c.Role, c.JWT.Reveal())
	case config.Certificate:
		return vault.Certificate(c.Path)
	case config.Proxied:
		return vault.Proxied()
	}
	panic(fmt.Sprintf("upstream: no such credential: %s", c.Method))
}

// bound is the annotation that marks a seed as bound to associated data. It does
// not contain the data; decryption uses what the operator has configured.
const bound = "associated-data.trousseau.io"

// Binding is the associated data that ciphertexts are bound to, so that one made
// for another purpose under the same key cannot be decrypted here. The zero value
// binds to nothing. Treat it as read-only.
type Binding struct {
	// Data is nil for none.
	Data []byte
	// Required refuses seeds that are not bound.
	Required bool
}

// BindingOf returns the binding that v configures.
func BindingOf(v *config.Vault) Binding {
	if v.AssociatedData == "" {
		return Binding{}
	}
	return Binding{Data: []byte(v.AssociatedData), Required: v.RequireAssociatedData}
}

// Annotations returns the annotations of newly wrapped seeds; nil for none.
func (b Binding) Annotations() map[string][]byte {
	if b.Data == nil {
		return nil
	}
	return map[string][]byte{bound: []byte("v1")}
}

// Of returns the associated data to decrypt a seed with. Annotations are
// untrusted: adding or removing the mark only makes Vault refuse the seed. Errors
// have the class [fault.Invalid].
func (b Binding) Of(annotations map[string][]byte) ([]byte, error) {
	_, marked := annotations[bound]
	switch {
	case marked && b.Data == nil:
		return nil, fault.Errorf(fault.Invalid, "decrypting: this seed is bound to associated data, but associatedData is not set; set the value it was encrypted with")
	case !marked && b.Required:
		return nil, fault.Errorf(fault.Invalid, "decrypting: this seed is not bound to associated data, but requireAssociatedData is set; unset it until everything is re-encrypted")
	case !marked:
		return nil, nil
	}
	return b.Data, nil
}

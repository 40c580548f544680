// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/fault"
)

// bound is the annotation that marks a seed as bound to associated data. It does
// not hold the data: what is used to decrypt is what the operator has set.
const bound = "associated-data.trousseau.io"

// Binding is the associated data that ciphertexts are bound to, so that one made
// for another purpose under the same key is of no use here. The zero value binds
// to nothing. It is not to be changed.
type Binding struct {
	// Data is nil for none.
	Data []byte
	// Required refuses what is not bound.
	Required bool
}

// BindingOf is what v asks for.
func BindingOf(v *config.Vault) Binding {
	if v.AssociatedData == "" {
		return Binding{}
	}
	return Binding{Data: []byte(v.AssociatedData), Required: v.RequireAssociatedData}
}

// Annotations are those of what is encrypted from now on; nil for none.
func (b Binding) Annotations() map[string][]byte {
	if b.Data == nil {
		return nil
	}
	return map[string][]byte{bound: []byte("v1")}
}

// Of returns the associated data to decrypt a seed with. Its annotations are
// nobody's word: who removes or adds the mark gets another seed refused by Vault.
// Errors are of class [fault.Invalid].
func (b Binding) Of(annotations map[string][]byte) ([]byte, error) {
	_, marked := annotations[bound]
	switch {
	case marked && b.Data == nil:
		return nil, fault.Errorf(fault.Invalid, "decrypting: this was bound to associated data, and associatedData is not set: set what it was encrypted with")
	case !marked && b.Required:
		return nil, fault.Errorf(fault.Invalid, "decrypting: this is not bound to associated data, and requireAssociatedData is set: unset it until everything has been encrypted again")
	case !marked:
		return nil, nil
	}
	return b.Data, nil
}

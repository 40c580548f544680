// SPDX-License-Identifier: Apache-2.0

package live

import (
	"errors"

	"github.com/trousseau-io/trousseau/internal/vault"
)

// bound is the annotation that marks a seed as bound to associated data. It does
// not hold the data: what is used to decrypt is what the operator has set.
const bound = "associated-data.trousseau.io"

// binding is the associated data that ciphertexts are bound to, so that one made
// for another purpose under the same key is of no use here.
type binding struct {
	data     []byte // nil for none
	required bool
}

// annotations are those of what is encrypted from now on.
func (b binding) annotations() map[string][]byte {
	if b.data == nil {
		return nil
	}
	return map[string][]byte{bound: []byte("v1")}
}

// of returns the associated data to decrypt a seed with. Its annotations are
// nobody's word: who removes or adds the mark gets another seed refused by Vault.
func (b binding) of(annotations map[string][]byte) ([]byte, error) {
	_, marked := annotations[bound]
	switch {
	case marked && b.data == nil:
		return nil, vault.Errorf(vault.Invalid, "decrypting: this was bound to associated data, and associatedData is not set: set what it was encrypted with")
	case !marked && b.required:
		return nil, vault.Errorf(vault.Invalid, "decrypting: this is not bound to associated data, and requireAssociatedData is set: unset it until everything has been encrypted again")
	case !marked:
		return nil, nil
	}
	return b.data, nil
}

// continues reports why next, adopted in b's place, would leave something that
// cannot be decrypted.
func (b binding) continues(next binding) error {
	switch {
	case b.data != nil && string(b.data) != string(next.data):
		return errors.New("the new configuration has another associatedData, or none, but data is bound to the one in use: it cannot be changed")
	case b.data == nil && next.required:
		return errors.New("the new configuration has requireAssociatedData, but nothing is bound to associated data yet: set associatedData alone, encrypt everything again, then require it")
	}
	return nil
}

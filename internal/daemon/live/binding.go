// SPDX-License-Identifier: Apache-2.0

package live

import (
	"errors"

	"github.com/trousseau-io/trousseau/internal/upstream"
)

// rebinding reports why next, adopted in active's place, would leave something
// that cannot be decrypted.
func rebinding(active, next upstream.Binding) error {
	switch {
	case active.Data != nil && string(active.Data) != string(next.Data):
		return errors.New("the new configuration has another associatedData, or none, but data is bound to the one in use: it cannot be changed")
	case active.Data == nil && next.Required:
		return errors.New("the new configuration has requireAssociatedData, but nothing is bound to associated data yet: set associatedData alone, encrypt everything again, then require it")
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package drill

import "github.com/trousseau-io/trousseau/internal/config"

// bound is the annotation with which Trousseau marks a seed that is bound to
// associated data.
const bound = "associated-data.trousseau.io"

// associatedData is what a seed with these annotations has to be decrypted with,
// by the rules of Trousseau itself.
func associatedData(v *config.Vault, annotations map[string][]byte) ([]byte, error) {
	_, marked := annotations[bound]
	switch {
	case marked && v.AssociatedData == "":
		return nil, &Failure{Verdict: Lost, Reason: "it is bound to associated data, and the configuration has no associatedData: set what it was encrypted with"}
	case !marked && v.RequireAssociatedData:
		return nil, &Failure{Verdict: Lost, Reason: "it is not bound to associated data, and the configuration has requireAssociatedData: unset it until everything has been encrypted again"}
	case !marked:
		return nil, nil
	}
	return []byte(v.AssociatedData), nil
}

// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"fmt"
	"slices"
	"strings"
)

// settle finds out which provider writes a resource, from what the API servers have
// counted since the gate opened: they write with that provider, and its values are the
// only ones that they leave as they are.
func (w *walk) settle(k kind, p *position) error {
	wrote := p.here.Rewritten > 0
	if w.opts.DryRun || !wrote && p.here.Current == 0 && p.Migration == "" {
		return nil
	}
	names, known := w.gate.used(k.name, true)
	if known && len(names) == 0 && !wrote {
		if names, known = w.gate.used(k.name, false); known && len(names) == 0 && p.here.Current > 0 {
			return problem{NotEncrypted, fmt.Sprintf("No API server encrypts %s.", k.name),
				"Add the resource to EncryptionConfiguration. If there are other API servers, name each with --api-server."}
		}
		known = len(names) == 1
	}
	switch {
	case !known:
	case len(names) == 0:
		return problem{OtherProvider, fmt.Sprintf("No API server has written %s since this run began.", k.name), "Name every API server with --api-server."}
	case len(names) > 1:
		return problem{OtherProvider, fmt.Sprintf("The API servers write %s with different providers: %s.", k.name, strings.Join(names, ", ")),
			"Give every API server the same EncryptionConfiguration, and run this again."}
	case !slices.Contains(w.gate.providers, names[0]):
		return problem{OtherProvider, fmt.Sprintf("kube-apiserver writes %s with the provider %s, which does not have the plugins' key_id.", k.name, names[0]),
			"Make Trousseau the first provider for it in EncryptionConfiguration."}
	case p.Provider != "" && names[0] != p.Provider:
		return problem{OtherProvider, fmt.Sprintf("kube-apiserver writes %s with the provider %s, and not with %s any more.", k.name, names[0], p.Provider),
			"Delete the state file, if there is one, and run this again."}
	default:
		p.Provider = names[0]
	}
	return nil
}

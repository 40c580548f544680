// SPDX-License-Identifier: Apache-2.0

package config

import "fmt"

// maxAssociatedData bounds associatedData, in bytes: it goes to Vault with each request.
const maxAssociatedData = 256

// associatedData reads what is bound into every ciphertext, and whether ciphertexts without it are refused.
func (p *parser) associatedData(s section) (data string, required bool) {
	if value, ok := p.text(s, "associatedData"); ok {
		if wrong := associatedDataProblem(value); wrong != "" {
			p.refuse(s.lineOf("associatedData"), s.full("associatedData"), "%s %s", show(value), wrong)
		}
		data = value
	}
	required, _ = p.boolean(s, "requireAssociatedData")
	if required && !s.has("associatedData") {
		p.refuse(s.lineOf("requireAssociatedData"), s.full("associatedData"),
			"is missing; write the text that requireAssociatedData is to require, or remove that line")
	}
	return data, required
}

// associatedDataProblem reads on from the value. Like a name, it is shown.
func associatedDataProblem(value string) string {
	if len(value) > maxAssociatedData {
		return fmt.Sprintf("is too long; write up to %d bytes", maxAssociatedData)
	}
	return elsewhere(value)
}

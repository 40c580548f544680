// SPDX-License-Identifier: Apache-2.0

package chart

import "testing"

// A maintainer lints the chart with each set of values. Without any it cannot be
// rendered, since Vault's address has no default.
func TestLint(t *testing.T) {
	eachHelm(t, func(t *testing.T, h helm) {
		for _, s := range sets(t) {
			if _, err := h.try("lint", "--strict", "--kube-version="+kubeVersion, chartDir, s.flag()); err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
		}
	})
}

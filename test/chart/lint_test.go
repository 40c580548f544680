// SPDX-License-Identifier: Apache-2.0

package chart

import "testing"

// The chart passes helm lint with each set of values. Without values it cannot be
// rendered, because image and address of Vault have no default.
func TestLint(t *testing.T) {
	eachHelm(t, func(t *testing.T, h helm) {
		for _, s := range sets(t) {
			if _, err := h.try("lint", "--strict", "--kube-version="+kubeVersion, chartDir, s.flag()); err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
		}
	})
}

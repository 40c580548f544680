// SPDX-License-Identifier: Apache-2.0

// Package chart executes the Helm chart instead of only rendering it: a real
// kube-apiserver stores the rendered objects, and they run as a kubelet would run
// them, with a real Vault. `make chart-test` builds the tools and runs it.
package chart

import (
	"os"
	"testing"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// report collects a row from every scenario.
var report testbed.Report

func TestMain(m *testing.M) {
	kubelet.Main() // containers are processes of this program
	os.Exit(testbed.Main(m, &report))
}

// trousseauctl returns the path of the image's other program.
func trousseauctl(t *testing.T) string {
	t.Helper()
	path, err := testbed.Trousseauctl()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

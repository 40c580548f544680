// SPDX-License-Identifier: Apache-2.0

// Package chart executes the Helm chart instead of only rendering it: what Helm
// makes of it is stored by a real kube-apiserver and run as a kubelet would,
// against a real Vault. `make chart-test` builds what it takes and runs it.
package chart

import (
	"os"
	"testing"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// report takes a row of every scenario.
var report testbed.Report

func TestMain(m *testing.M) {
	kubelet.Main() // containers are processes of this program
	code := m.Run()
	report.Print(os.Stdout)
	os.Exit(code)
}

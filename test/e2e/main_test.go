// SPDX-License-Identifier: Apache-2.0

// Package e2e is what Trousseau's users do with it, between real servers:
// Vault, Vault Agent, etcd and kube-apiserver. Each test is one scenario, named
// after what its user does. `make e2e` runs them and prints what was observed.
package e2e

import (
	"os"
	"testing"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// report takes a row of every scenario.
var report testbed.Report

func TestMain(m *testing.M) {
	code := m.Run()
	report.Print(os.Stdout)
	os.Exit(code)
}

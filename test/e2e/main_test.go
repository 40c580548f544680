// SPDX-License-Identifier: Apache-2.0

// Package e2e tests what Trousseau's users do, with real servers: Vault, Vault
// Agent, etcd and kube-apiserver. Each test is one scenario. `make e2e` runs them
// and prints the observations.
package e2e

import (
	"os"
	"testing"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// report collects a row from every scenario.
var report testbed.Report

func TestMain(m *testing.M) {
	code := m.Run()
	report.Print(os.Stdout)
	os.Exit(code)
}

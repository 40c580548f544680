// SPDX-License-Identifier: Apache-2.0

// Package ctl tests trousseauctl's commands with real servers: Vault, etcd and
// kube-apiserver.
package ctl

import (
	"os"
	"testing"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// report collects a row from every scenario.
var report testbed.Report

func TestMain(m *testing.M) { os.Exit(testbed.Main(m, &report)) }

// trousseauctl returns the path of the command, also in a process in namespaces, whose
// parent has built it.
func trousseauctl() (string, error) {
	if program := os.Getenv(programVariable); program != "" {
		return program, nil
	}
	return testbed.Trousseauctl()
}

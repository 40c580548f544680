// SPDX-License-Identifier: Apache-2.0

// Package ctl tests trousseauctl's commands with real servers: Vault, etcd and
// kube-apiserver.
package ctl

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// report collects a row from every scenario.
var report testbed.Report

// programs is a directory for all tests.
var programs string

func TestMain(m *testing.M) {
	var err error
	if programs, err = os.MkdirTemp("", "ctl"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(programs)
	report.Print(os.Stdout)
	os.Exit(code)
}

// trousseauctl builds the command once, and returns its path.
var trousseauctl = sync.OnceValues(func() (string, error) {
	if program := os.Getenv(programVariable); program != "" {
		return program, nil
	}
	build := exec.Command("go", "build", "-o", programs, "./cmd/trousseauctl")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building trousseauctl: %w\n%s", err, out)
	}
	return filepath.Join(programs, "trousseauctl"), nil
})

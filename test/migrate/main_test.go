// SPDX-License-Identifier: Apache-2.0

// Package migrate executes the pages in docs/migrate on real servers: clusters that
// come from elsewhere, go back, and leave again, while they are used. `make
// migrate-test` runs it and prints the observations.
//
// A test is a [site] that is taken through the steps of one page. The commands are those
// that the page shows, so that the two cannot differ. Before, during and after each step,
// every API server must be able to read every Secret, and take writes.
package migrate

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
	if programs, err = os.MkdirTemp("", "migrate"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(programs)
	report.Print(os.Stdout)
	os.Exit(code)
}

// trousseauctl builds the command once, and returns its path.
var trousseauctl = sync.OnceValues(func() (string, error) {
	build := exec.Command("go", "build", "-o", programs, "./cmd/trousseauctl")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building trousseauctl: %w\n%s", err, out)
	}
	return filepath.Join(programs, "trousseauctl"), nil
})

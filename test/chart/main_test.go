// SPDX-License-Identifier: Apache-2.0

// Package chart executes the Helm chart instead of only rendering it: a real
// kube-apiserver stores the rendered objects, and they run as a kubelet would run
// them, with a real Vault. `make chart-test` builds the tools and runs it.
package chart

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// report collects a row from every scenario.
var report testbed.Report

func TestMain(m *testing.M) {
	kubelet.Main() // containers are processes of this program
	var err error
	if binaries, err = os.MkdirTemp("", "chart"); err != nil {
		panic(err)
	}
	code := m.Run()
	report.Print(os.Stdout)
	_ = os.RemoveAll(binaries)
	os.Exit(code)
}

// binaries is the directory for what the tests build.
var binaries string

// buildTrousseauctl builds the image's other program once.
var buildTrousseauctl = sync.OnceValues(func() (string, error) {
	build := exec.Command("go", "build", "-o", binaries+"/", "./cmd/trousseauctl")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building trousseauctl: %w: %s", err, out)
	}
	return filepath.Join(binaries, "trousseauctl"), nil
})

// trousseauctl returns the path of the program.
func trousseauctl(t *testing.T) string {
	t.Helper()
	path, err := buildTrousseauctl()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

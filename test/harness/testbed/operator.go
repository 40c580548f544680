// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// programs is the directory of what this process has built; "" if nothing.
var programs string

// Trousseauctl builds the command once in a process, and returns its path. [Main] removes
// it. The working directory must be that of a package of tests, test/NAME.
var Trousseauctl = sync.OnceValues(func() (path string, err error) {
	if programs, err = os.MkdirTemp("", "trousseauctl"); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", programs+"/", "./cmd/trousseauctl")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building trousseauctl: %w\n%s", err, out)
	}
	return filepath.Join(programs, "trousseauctl"), nil
})

// Main runs the tests of a package, prints its report, and returns the exit code.
func Main(m *testing.M, report *Report) int {
	code := m.Run()
	if programs != "" {
		_ = os.RemoveAll(programs)
	}
	report.Print(os.Stdout)
	return code
}

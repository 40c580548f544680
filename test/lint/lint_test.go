// SPDX-License-Identifier: Apache-2.0

// Package lint proves that the linter refuses what crosses a border of
// CONTRIBUTING.md's map.
package lint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

const root = "../.."

// TestBorders runs golangci-lint over a copy of the project to which a script
// adds files. TROUSSEAU_LINT is the linter; make lint sets it.
func TestBorders(t *testing.T) {
	linter := os.Getenv("TROUSSEAU_LINT")
	if linter == "" {
		t.Skip("TROUSSEAU_LINT is not set; run make lint")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("LINT", linter)
			for _, name := range []string{"HOME", "GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY"} {
				env.Setenv(name, goEnv(t, name))
			}
			// The linter's results depend on file names, so that a cache shared
			// with the project's would be of no use and only grow.
			env.Setenv("GOLANGCI_LINT_CACHE", filepath.Join(env.WorkDir, "cache"))
			return copyProject(t, env.WorkDir)
		},
	})
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	if name == "HOME" {
		return os.Getenv(name)
	}
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// copyProject copies what the linter reads of the product's module.
func copyProject(t *testing.T, to string) error {
	t.Helper()
	list := exec.CommandContext(t.Context(), "git", "ls-files", "--", "go.mod", "go.sum", ".golangci.yml", "cmd", "internal")
	list.Dir = root
	files, err := list.Output()
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(files)) {
		data, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // removed, and not committed yet
		}
		if err != nil {
			return err
		}
		file := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

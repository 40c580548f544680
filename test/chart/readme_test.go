// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// The chart's README.md is what helm-docs generates from values.yaml, and describes
// every value.
func TestReadme(t *testing.T) {
	dir := os.Getenv(helmVariable)
	if dir == "" {
		t.Skipf("%s is not set; run `make chart-test`", helmVariable)
	}
	got, err := os.ReadFile(filepath.Join(chartDir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(chartDir)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "helm-docs"), "--chart-search-root="+root, "--sort-values-order=file")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, out)
	}
	want, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("README.md of the chart is not up to date; run `make chart-docs`")
	}
	for _, row := range regexp.MustCompile("(?m)^\\| (\\S+) \\|.*\\| *\\|$").FindAllStringSubmatch(string(want), -1) {
		t.Errorf("values.yaml does not describe %s", row[1])
	}
}

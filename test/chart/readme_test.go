// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
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
	for _, row := range regexp.MustCompile(`(?m)^\| (\S+) \|.*\| *\|$`).FindAllStringSubmatch(string(want), -1) {
		t.Errorf("values.yaml does not describe %s", row[1])
	}
}

// The annotations for Artifact Hub are the YAML that it expects, and name what the
// chart has: the image of its values, and pages that exist.
func TestArtifactHub(t *testing.T) {
	var chart struct {
		Annotations map[string]string `json:"annotations"`
	}
	var values struct {
		Config struct {
			Agent struct {
				Image struct{ Repository, Tag string }
			}
		}
	}
	for name, into := range map[string]any{"Chart.yaml": &chart, "values.yaml": &values} {
		text, err := os.ReadFile(filepath.Join(chartDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, into); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	var images, links []struct{ Name, Image, URL string }
	for annotation, into := range map[string]any{"images": &images, "links": &links} {
		if err := yaml.UnmarshalStrict([]byte(chart.Annotations["artifacthub.io/"+annotation]), into); err != nil {
			t.Errorf("%s: %v", annotation, err)
		}
	}
	agent := values.Config.Agent.Image
	if want := agent.Repository + ":" + agent.Tag; len(images) != 1 || images[0].Image != want {
		t.Errorf("images %v, want only %s", images, want)
	}
	for _, link := range links {
		page, found := strings.CutPrefix(link.URL, "https://github.com/trousseau-io/trousseau/blob/main/")
		file, _, _ := strings.Cut(page, "#")
		if _, err := os.Stat(filepath.Join("../..", file)); !found || err != nil {
			t.Errorf("link %s to %s: %v", link.Name, link.URL, err)
		}
	}
	if len(links) == 0 {
		t.Error("no links")
	}
}

// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	// helmVariable names the directory with all helmVersions.
	helmVariable = "TROUSSEAU_HELM"
	chartDir     = "../../charts/trousseau"
	// kubeVersion is the cluster version for rendering.
	kubeVersion = "1.37.2"
	// release and namespace are those of the documentation.
	release   = "trousseau"
	namespace = "kube-system"
	installer = release + "-installer"
)

// helmVersions are the versions that the chart supports.
var helmVersions = []string{"helm3", "helm4"}

// helm runs one version of Helm, isolated from the caller's environment.
type helm struct {
	t          *testing.T
	path       string
	kubeconfig string // "" if it only renders
	chart      string
}

// newHelm skips the test unless the environment names Helm's directory.
func newHelm(t *testing.T, version, kubeconfig string) helm {
	t.Helper()
	dir := os.Getenv(helmVariable)
	if dir == "" {
		t.Skipf("%s is not set; run `make chart-test`", helmVariable)
	}
	return helm{t: t, path: filepath.Join(dir, version), kubeconfig: kubeconfig, chart: chartDir}
}

// eachHelm runs a test with each version.
func eachHelm(t *testing.T, test func(*testing.T, helm)) {
	for _, version := range helmVersions {
		t.Run(version, func(t *testing.T) { test(t, newHelm(t, version, "")) })
	}
}

// run returns helm's output, and ends the test if helm fails.
func (h helm) run(args ...string) string {
	h.t.Helper()
	out, err := h.try(args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// try is run that returns an error, including helm's standard error.
func (h helm) try(args ...string) (string, error) {
	h.t.Helper()
	home := h.t.TempDir()
	cmd := exec.CommandContext(h.t.Context(), h.path, args...)
	cmd.Env = []string{"HOME=" + home, "PATH=/usr/bin:/bin", "KUBECONFIG=" + h.kubeconfig}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(h.path), strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// template renders the chart for a namespace, with additional arguments, and without
// the pod of `helm test`.
func (h helm) template(namespace string, args ...string) string {
	h.t.Helper()
	out, err := h.tryTemplate(namespace, args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h helm) tryTemplate(namespace string, args ...string) (string, error) {
	h.t.Helper()
	return h.try(append([]string{"template", release, h.chart, "--namespace=" + namespace, "--kube-version=" + kubeVersion, "--skip-tests"}, args...)...)
}

// write writes a file of values and returns the argument that names it.
func write(t *testing.T, values string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--values=" + file
}

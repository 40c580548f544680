// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"fmt"
	"os/exec"
	"strings"
)

// What a test needs of a server's version is decided here, by what the servers' own
// programs say.

// NeedsVault skips the test unless the server is HashiCorp Vault; lacks is what
// others do not have.
func (b *Bed) NeedsVault(lacks string) {
	b.t.Helper()
	if version := b.says("vault", "version"); !strings.HasPrefix(version, "Vault ") {
		b.t.Skipf("%s: %s", version, lacks)
	}
}

// NeedsKubernetes skips the test if kube-apiserver is older than 1.minor; lacks is
// what older ones do not have.
func (b *Bed) NeedsKubernetes(minor int, lacks string) {
	b.t.Helper()
	if !b.IsKubernetes(minor) {
		b.t.Skipf("%s: %s", b.says("kube-apiserver", "--version"), lacks)
	}
}

// IsKubernetes reports whether kube-apiserver is 1.minor or later.
func (b *Bed) IsKubernetes(minor int) bool {
	b.t.Helper()
	version, got := b.says("kube-apiserver", "--version"), 0
	if _, err := fmt.Sscanf(version, "Kubernetes v1.%d.", &got); err != nil {
		b.t.Fatalf("kube-apiserver --version: %q: %v", version, err)
	}
	return got >= minor
}

// says returns the first line of what a program prints.
func (b *Bed) says(tool string, args ...string) string {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), b.tool(tool), args...)
	cmd.Env = b.environment()
	out, err := b.command(cmd)
	if err != nil {
		b.t.Fatal(err)
	}
	line, _, _ := strings.Cut(out, "\n")
	return line
}

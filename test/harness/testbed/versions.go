// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// What a test needs of a server's version is decided here, by what the servers' own
// programs say.

// NeedsVault skips the test unless the server is HashiCorp Vault; lacks is what
// others do not have.
func (b *Bed) NeedsVault(lacks string) {
	b.t.Helper()
	if !b.IsVault() {
		b.t.Skipf("%s: %s", b.says("vault", "version"), lacks)
	}
}

// IsVault reports whether the server is HashiCorp Vault.
func (b *Bed) IsVault() bool {
	b.t.Helper()
	return strings.HasPrefix(b.says("vault", "version"), "Vault ")
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

// token matches the tokens of Vault, and those of OpenBao and of Vault before 1.10.
var token = regexp.MustCompile(`\bhv[sbr]\.|\b[sbr]\.[0-9A-Za-z]{24}`)

// HoldsToken reports whether a token of the server is in the text.
func HoldsToken(text string) bool { return token.MatchString(text) }

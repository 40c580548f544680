// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// localProviders encrypt with a key in the file.
var localProviders = []string{
	"  - aescbc: {keys: [{name: key1, secret: YWVzY2JjLCBub3QgYSBzZWNyZXQsIDMyIGJ5dGVzIS4=}]}\n",
	"  - secretbox: {keys: [{name: key1, secret: c2VjcmV0Ym94LCBub3QgYSBzZWNyZXQsIDMyIGJ5dGU=}]}\n",
	"  - aesgcm: {keys: [{name: key1, secret: YWVzZ2NtLCBub3QgYSBzZWNyZXQsIDMyIGJ5dGVzIS4=}]}\n",
}

const noProviders = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
`

// A cluster whose Secrets are under all three kinds of local keys, and in the clear,
// comes to Trousseau, goes back in the middle, comes again, leaves for a local key, and
// then for no encryption.
func TestLocalKeys(t *testing.T) {
	s := newSite(t, "1 local keys", "local-keys.md", testbed.Options{})
	const identity = "  - identity: {}\n"
	s.variables["KEY"] = filepath.Join(s.Dir, "local.key")
	// Each provider has written some Secrets at a time when it was the first one.
	first, second := s.Nodes[0], s.Nodes[1]
	s.encrypt("")
	for i, writer := range append([]string{identity}, localProviders...) {
		others := slices.DeleteFunc(append(slices.Clone(localProviders), identity), func(p string) bool { return p == writer })
		for _, n := range s.Nodes {
			s.Write(file(n), noProviders+writer+strings.Join(others, ""))
		}
		if i > 0 {
			first.APIServer.Stop()
		}
		first.APIServer.Start()
		first.APIServer.AwaitReady()
		seed(t, first.APIServer, fmt.Sprintf("before-%d-", i), 10)
	}
	second.APIServer.Start()
	s.install()
	second.APIServer.AwaitReady()
	s.use()

	s.onEach("read")
	if stored := s.stored(); len(stored) != 4 {
		t.Fatalf("stored in other ways than with three keys and in the clear: %v", stored)
	}
	s.onEach("write")
	s.onEach("back")
	s.mustHaveBothWays("kms v2 trousseau")
	s.onEach("write")
	s.step("reencrypt", func() { s.run("reencrypt", nil) })
	s.mustBeStored("kms v2 trousseau " + first.Trousseau.KeyID())
	s.onEach("only-trousseau")

	s.run("new-key", nil)
	s.onEach("leave-read")
	s.onEach("leave-write")
	s.rewrite()
	s.mustBeStored("secretbox key1")
	s.onEach("leave")
	s.step("Trousseau is stopped", func() {
		for _, n := range s.Nodes {
			n.Trousseau.Stop()
			s.users.restart(n.APIServer)
		}
	})
	s.onEach("plain-read")
	s.onEach("plain-write")
	s.rewrite()
	s.mustBeStored("protobuf")
	s.step("no EncryptionConfiguration", func() {
		for _, n := range s.Nodes {
			n.APIServer.Args = slices.DeleteFunc(n.APIServer.Args, func(a string) bool { return strings.HasPrefix(a, "--encryption-provider-config=") })
			s.users.restart(n.APIServer)
		}
	})
}

// mustHaveBothWays checks that some Secrets are stored in this way, and others are not.
func (s *site) mustHaveBothWays(prefix string) {
	s.t.Helper()
	stored := s.stored()
	with := 0
	for way := range stored {
		if strings.HasPrefix(way, prefix) {
			with++
		}
	}
	if with == 0 || with == len(stored) {
		s.t.Fatalf("want some Secrets under %s, and some not: %v", prefix, stored)
	}
}

// rewrite executes the page's command until it has rewritten everything: it leaves out
// what changes meanwhile, which changed after the first provider was replaced.
func (s *site) rewrite() {
	s.t.Helper()
	s.step("rewrite", func() {
		out, code := s.try("rewrite", nil)
		for line := range strings.Lines(out) {
			if strings.Contains(line, "Error") && !strings.Contains(line, "Conflict") && !strings.Contains(line, "NotFound") {
				s.t.Fatalf("rewrite ended with %d: %s", code, line)
			}
		}
	})
	s.try("left", nil) // a Secret in the clear is a finding
}

// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator replaces the token in config.yaml by a login with AppRole, goes back, does
// the same with the ServiceAccount, and then again with AppRole. No request fails, and in the end the old token is revoked.
func TestTokenToLogin(t *testing.T) {
	s := newSite(t, "5 from a token to a login", "token-to-login.md", testbed.Options{})
	s.installWithToken()
	var plugins []*testbed.Trousseau
	for _, n := range s.Nodes {
		plugins = append(plugins, n.Trousseau)
	}
	id := plugins[0].KeyID()
	load := s.StartLoad(testbed.LoadOptions{Plugins: plugins})

	s.variables["CONFIG"] = s.Nodes[0].ConfigFile
	s.run("accessor", nil)
	s.run("approle-role", nil)
	for _, n := range s.Nodes {
		s.run("approle-secret", n)
	}
	s.reload("approle-switch")
	s.reload("back")
	s.mustLogIn("approle", 0) // a token of a login is revoked when it is no longer used

	s.run("kubernetes-role", nil)
	account := filepath.Dir(s.Write("serviceaccount/token", s.Nodes[0].APIServer.Kubectl("create", "token", "trousseau", "--namespace=kube-system")))
	s.here = append(s.here, "/var/run/secrets/kubernetes.io/serviceaccount", account)
	s.reload("kubernetes-switch")
	s.mustLogIn("kubernetes", len(s.Nodes))
	s.reload("back")
	s.reload("approle-switch")
	s.mustLogIn("approle", len(s.Nodes))

	s.step("the token is revoked", func() {
		s.run("revoke", nil)
		for _, n := range s.Nodes {
			s.run("forget", n)
		}
		load.AwaitMore(100)
	})
	tally := load.Stop()
	s.Count(tally.Operations(), tally.Failures())
	if tally.Failures() > 0 {
		t.Errorf("requests of kube-apiserver's client: %s", tally.KMS)
	}
	s.mustBeStored("kms v2 trousseau " + id)
}

// mustLogIn waits until n tokens from logins at an auth method are left.
func (s *site) mustLogIn(mount string, n int) {
	s.t.Helper()
	s.Await(time.Minute, "tokens from logins", func(ctx context.Context) error {
		leases, err := s.Vault.LeasesFrom(ctx, mount)
		if err == nil && len(leases) != n {
			err = fmt.Errorf("%d tokens from logins at %s, want %d", len(leases), mount, n)
		}
		return err
	})
}

// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// useUnderLoad calls do while kube-apiserver and its plugin are under load.
func (s *stage) useUnderLoad(trousseau *testbed.Trousseau, do func(*testbed.Load)) {
	s.t.Helper()
	load := s.StartLoad(testbed.LoadOptions{APIServers: []*testbed.APIServer{s.node.APIServer}, Plugins: []*testbed.Trousseau{trousseau}})
	load.AwaitMore(20)
	do(load)
	tally := load.Stop()
	s.Count(tally.Operations(), tally.Failures())
	load.MustHaveNoFailures("at the end")
	s.Observe("Secrets: %s; Encrypt and Decrypt: %s", tally.Secrets, tally.KMS)
}

// rotateTokens repeatedly puts a new token into the KV secret and revokes the old
// one as soon as the new one is rendered.
func (s *stage) rotateTokens(trousseau *testbed.Trousseau, load *testbed.Load) {
	s.t.Helper()
	const rotations = 3
	old := testbed.Token{}
	for i := range rotations {
		token := s.Vault.NewToken()
		s.ConfigureToken(token)
		s.Await(30*time.Second, "the agent to render the new token", s.node.Rendered(token.ID))
		if old.ID != "" {
			s.Vault.Revoke(old)
		}
		s.Await(10*time.Second, "the new token to be in use", trousseau.Uses(token))
		load.AwaitMore(20)
		load.MustHaveNoFailures(fmt.Sprintf("token rotation %d", i+1))
		old = token
	}
	s.Observe("%d tokens rotated, each revoked when its successor was rendered: %s", rotations, load.Tally().KMS)
}

// rotateKey rotates the transit key and waits until the new version is reported.
func (s *stage) rotateKey(trousseau *testbed.Trousseau, load *testbed.Load) {
	s.t.Helper()
	before := trousseau.KeyID()
	s.Vault.CLI("write", "-f", "transit/keys/"+testbed.Key+"/rotate")
	took := s.Await(10*time.Second, "the new key version to be reported", func(ctx context.Context) error {
		status, err := trousseau.KMS.Status(ctx)
		if err == nil && status.KeyID == before {
			err = errors.New("it still reports " + before)
		}
		return err
	})
	load.AwaitMore(20)
	load.MustHaveNoFailures("key rotation")
	s.Observe("key rotated: reported after %s", took.Round(time.Millisecond))
}

// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// The default: a DaemonSet without a sidecar. Trousseau logs in with its ServiceAccount's token
// and does not run as root. The kubelet replaces that token under load, the key is
// rotated, and at the end no token is left in Vault.
func TestLogin(t *testing.T) {
	s := newStage(t, "5 DaemonSet that logs in by itself")
	s.Vault.CLI("write", "auth/kubernetes/role/trousseau", "bound_service_account_names=trousseau",
		"bound_service_account_namespaces="+namespace, "token_policies=trousseau", "token_ttl=1h")
	// Vault has a name that only hostAliases knows.
	_, port, _ := net.SplitHostPort(s.Proxy.Addr)
	s.helmDo("install", "runAsUser: 65532\nrunAsGroup: 65532\nhostAliases: [{ip: 127.0.0.1, hostnames: [vault.internal]}]\n"+
		"vault: {address: \"https://vault.internal:"+port+"\", tlsServerName: localhost}\n")
	pod := s.schedule("trousseau-login")
	trousseau := s.attach(pod)
	s.mustBeHealthy(pod, trousseau)
	s.mustBeSound(pod, "")

	load := s.StartLoad(testbed.LoadOptions{Plugins: []*testbed.Trousseau{trousseau}})
	load.AwaitMore(20)
	if err := pod.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := s.Await(30*time.Second, "the new ServiceAccount's token to be in use", trousseau.MetricIs(2, "trousseau_generation"))
	load.AwaitMore(20)
	load.MustHaveNoFailures("another ServiceAccount's token")
	s.Observe("another ServiceAccount's token, in use after %s", took.Round(time.Millisecond))
	s.rotateKey(trousseau, load)
	tally := load.Stop()
	s.Count(tally.Operations(), tally.Failures())
	s.Observe("Encrypt and Decrypt: %s", tally.KMS)

	s.mustEnd(pod)
	s.Await(10*time.Second, "all tokens to be revoked in Vault", func(ctx context.Context) error {
		left, err := s.Vault.LeasesFrom(ctx, "kubernetes")
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d tokens left", len(left))
		}
		return err
	})
}

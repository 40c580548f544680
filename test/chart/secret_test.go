// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// A DaemonSet with config.yaml in a Secret and Vault's CA in an existing ConfigMap, not running as root. The operator
// replaces the token there under load, and revokes the old one when the new one is in use.
func TestSecret(t *testing.T) {
	s := newStage(t, "6 DaemonSet with config.yaml from a Secret")
	first, second := s.Vault.NewToken(), s.Vault.NewToken()
	s.KeepSecret(first.ID, second.ID)
	s.keep(first)
	s.node.APIServer.Kubectl("create", "configmap", "authorities", "--namespace="+namespace, "--from-file=of-vault.pem="+s.CAFile())
	s.helmDo("install", "config: {source: secret, secret: {name: trousseau-config}}\nrunAsUser: 65532\nrunAsGroup: 65532\n"+
		"vault: {caConfigMap: {name: authorities, key: of-vault.pem}}\n")
	pod := s.schedule("trousseau-secret")
	trousseau := s.attach(pod)
	s.mustBeHealthy(pod, trousseau)

	load := s.StartLoad(testbed.LoadOptions{Plugins: []*testbed.Trousseau{trousseau}})
	load.AwaitMore(20)
	s.keep(second)
	if err := pod.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := s.Await(30*time.Second, "the new token to be in use", trousseau.Uses(second))
	s.Vault.Revoke(first)
	load.AwaitMore(20)
	load.MustHaveNoFailures("another token")
	s.rotateKey(trousseau, load)
	tally := load.Stop()
	s.Count(tally.Operations(), tally.Failures())
	s.Observe("another token, in use %s after the kubelet wrote it; Encrypt and Decrypt: %s", took.Round(time.Millisecond), tally.KMS)
	s.mustEnd(pod)
}

// keep creates or replaces the Secret.
func (s *stage) keep(token testbed.Token) {
	s.t.Helper()
	s.node.APIServer.KubectlWithInput(fmt.Sprintf(configSecret, namespace, testbed.Key, s.Proxy.Addr, token.ID), "apply", "-f", "-")
}

const configSecret = `apiVersion: v1
kind: Secret
metadata:
  name: trousseau-config
  namespace: %s
stringData:
  config.yaml: |
    provider: vault
    vault:
      keynames: [%s]
      address: https://%s
      token: %s
      vaultCACert: /etc/vault-ca/vault-ca.pem
`

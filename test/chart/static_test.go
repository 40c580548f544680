// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// A static pod while no API server runs: a Vault Agent logs in with AppRole, using
// files on the node. The API server starts afterwards and finds its plugin healthy;
// tokens and the key are rotated under load.
func TestStaticPod(t *testing.T) {
	s := newStage(t, "7 static pod with a Vault Agent")
	s.Vault.CLI("auth", "enable", "approle")
	s.Vault.CLI("write", "auth/approle/role/trousseau", "token_policies=trousseau-agent", "token_ttl=1h")
	credentials := filepath.Join(s.node.Dir, "credentials")
	s.Write(filepath.Join(credentials, "role-id"), s.Vault.CLI("read", "-field=role_id", "auth/approle/role/trousseau/role-id"))
	secret := s.Vault.CLI("write", "-f", "-field=secret_id", "auth/approle/role/trousseau/secret-id")
	s.KeepSecret(secret)
	s.Write(filepath.Join(credentials, "secret-id"), secret)

	api := s.node.APIServer
	api.Stop()
	pod := s.scheduleStatic("node1", fmt.Sprintf(`
mode: staticPod
config:
  source: agent
  agent:
    autoAuth:
      method: approle
      config:
        role_id_file_path: /etc/trousseau-credentials/role-id
        secret_id_file_path: /etc/trousseau-credentials/secret-id
        remove_secret_id_file_after_reading: false
nodeCredentials: %s
`, credentials))
	trousseau := s.attach(pod)
	s.node.ConfigFile = filepath.Join(pod.Volume("config"), "config.yaml")
	s.mustBeHealthy(pod, trousseau)

	s.node.Trousseau = trousseau
	s.node.Encrypt()
	api.Start()
	s.Observe("kube-apiserver ready %s after its start", api.AwaitReady())
	s.useUnderLoad(trousseau, func(load *testbed.Load) {
		s.rotateTokens(trousseau, load)
		s.rotateKey(trousseau, load)
	})
	s.mustEnd(pod)
}

// A static pod without a sidecar that logs in with a certificate from the node.
func TestStaticPodLogin(t *testing.T) {
	s := newStage(t, "8 static pod that logs in by certificate")
	s.Vault.CLI("auth", "enable", "cert")
	s.Vault.CLI("write", "auth/cert/certs/trousseau", "certificate=@"+s.CAFile(), "allowed_common_names=trousseau",
		"token_policies=trousseau", "token_ttl=1h")
	credentials := filepath.Join(s.node.Dir, "credentials")
	cert, key := s.IssueClient("trousseau")
	s.KeepSecret("PRIVATE KEY")
	s.Write(filepath.Join(credentials, "tls.crt"), cert)
	s.Write(filepath.Join(credentials, "tls.key"), key)
	s.node.APIServer.Stop()

	pod := s.scheduleStatic("node1", fmt.Sprintf(`
mode: staticPod
config:
  login:
    clientCert: /etc/trousseau-credentials/tls.crt
    clientKey: /etc/trousseau-credentials/tls.key
nodeCredentials: %s
`, credentials))
	trousseau := s.attach(pod)
	s.mustBeHealthy(pod, trousseau)
	load := s.StartLoad(testbed.LoadOptions{Plugins: []*testbed.Trousseau{trousseau}})
	load.AwaitMore(20)
	s.rotateKey(trousseau, load)
	tally := load.Stop()
	s.Count(tally.Operations(), tally.Failures())
	s.mustEnd(pod)
}

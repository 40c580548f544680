// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"strings"
	"testing"
)

// An operator installs with values that cannot work. Helm fails before it creates
// anything, and the message names the field and the error.
func TestRejections(t *testing.T) {
	const image = "image: {repository: registry.example/trousseau}\n"
	const address = "vault: {address: https://vault.example:8200}\n"
	const static = address + "mode: staticPod\n"
	const node = address + "mode: installer\nconfig: {login: {tokenFile: /etc/trousseau-credentials/token}}\nnodeCredentials: /etc/kubernetes/trousseau\n"
	const login = address + "config: {login: "
	const rotate = "cronJobs: {rotateKey: {enabled: true, vaultToken: {secretName: x}}}"
	for _, tc := range []struct {
		name, values string
		want         []string
	}{
		{"nothing", "image: {repository: \"\"}", []string{"image.repository", "required", "make image", "docs/install.md#the-image"}},
		{"no address", "", []string{"vault.address", "required"}},
		{"unknown field", "vault: {address: https://vault.example:8200, adress: x}", []string{"/vault", "'adress'", "not allowed"}},
		{"unknown section", address + "vualt: {}", []string{"'vualt'", "not allowed"}},
		{"unknown mode", address + "mode: deployment", []string{"/mode", "'daemonSet', 'staticPod', 'installer'"}},
		{"unknown source", address + "config: {source: vault}", []string{"/config/source", "'agent', 'login', 'secret'"}},
		{"version as a number", address + "image: {tag: 1.0}", []string{"/image/tag", "want string"}},
		{"mode as a number", address + "socket: {mode: 600}", []string{"/socket/mode", "want string"}},
		{"port as a string", address + `ops: {port: "8095"}`, []string{"/ops/port", "want integer"}},
		{"digest without sha256", address + "image: {digest: 0123abcd}", []string{"/image/digest", "sha256:"}},
		{"address without scheme", "vault: {address: vault.example:8200}", []string{"/vault/address", "https?://"}},
		{"address with path", "vault: {address: https://vault.example/v1}", []string{"/vault/address", "https?://"}},
		{"address in the clear", "vault: {address: http://vault.example:8200}", []string{"vault.address", "http://vault.example:8200", "unencrypted", "requireTLS=false"}},
		{"further address in the clear", "vault: {address: https://vault.example, addresses: [http://vault2.example:8200]}",
			[]string{"vault.addresses", "http://vault2.example:8200", "unencrypted", "requireTLS=false"}},
		{"CA as a file name", "vault: {address: https://vault.example, caCert: /etc/ssl/ca.pem}", []string{"/vault/caCert", "BEGIN CERTIFICATE"}},
		{"bound to nothing", "vault: {address: https://vault.example, requireAssociatedData: true}", []string{"vault.requireAssociatedData", "needs vault.associatedData"}},
		{"bare key_ids and associated data", "vault: {address: https://vault.example, acceptBareKeyIDs: true, associatedData: a}", []string{"vault.acceptBareKeyIDs", "excludes vault.associatedData"}},
		{"same key twice", "vault: {address: https://vault.example, keys: [a, a]}", []string{"/vault/keys", "equal"}},
		{"two CAs", "vault: {address: https://vault.example, caConfigMap: {name: a}, caSecret: {name: b}}", []string{"caConfigMap", "caSecret", "exclude each other"}},
		{"interval without unit", address + `config: {agent: {renderInterval: "30"}}`, []string{"/config/agent/renderInterval"}},
		{"Secret without name", "config: {source: secret}", []string{"config.secret.name", "required"}},
		{"token in values", login + "{token: hvs.secret}}", []string{"config.login.token", "tokenFile"}},
		{"secret ID in values", login + "{roleID: x, secretID: a-secret}}", []string{"config.login.secretID", "secretIDFile"}},
		{"two credentials", login + "{tokenFile: /etc/trousseau-credentials/token, kubernetes: {}}}\nnodeCredentials: /etc/kubernetes/trousseau",
			[]string{"config.login", "tokenFile", "kubernetes", "only one"}},
		{"AppRole without secret ID", login + "{roleID: x}}", []string{"config.login", "secretIDFile"}},
		{"certificate without key", login + "{clientCert: /etc/trousseau-credentials/tls.crt}}\nnodeCredentials: /etc/kubernetes/trousseau",
			[]string{"config.login", "clientKey"}},
		{"credential without directory", login + "{roleID: x, secretIDFile: /etc/trousseau-credentials/secret-id}}", []string{"nodeCredentials", "required"}},
		{"relative directory of credentials", address + "nodeCredentials: credentials", []string{"/nodeCredentials"}},
		{"relative socket directory", address + "socket: {directory: run/trousseau}", []string{"/socket/directory"}},
		{"socket path too long", address + "socket: {directory: /run/" + strings.Repeat("x", 100) + "}", []string{"/socket/directory", "maxLength"}},
		{"ops endpoints that Prometheus cannot reach", address + "podMonitor: {enabled: true}\nops: {address: 127.0.0.1}", []string{"ops.address", "loopback"}},
		{"flag that is a value", address + "extraArgs: [--listen-addr=/tmp/kms.sock]", []string{"extraArgs", "--listen-addr", "set that instead"}},
		{"socket of the probes", address + "extraArgs: [--health-addr=unix:///run/x.sock]", []string{"extraArgs", "--health-addr", "set that instead"}},
		{"user in the security context", address + "podSecurityContext: {runAsUser: 1}", []string{"podSecurityContext", "runAsUser"}},
		{"variable without name", address + "extraEnv: [{value: x}]", []string{"/extraEnv/0", "name"}},
		{"ServiceAccount without name", address + "serviceAccount: {create: false}", []string{"serviceAccount.name", "required"}},
		{"template in a value", "vault: {address: https://vault.example, associatedData: \"{{ env `HOME` }}\"}\nconfig: {source: agent}", []string{"vault: the agent", "{{"}},
		{"not a flag", address + "extraArgs: [debug]", []string{"/extraArgs/0"}},
		{"surge and unavailable", address + "updateStrategy: {rollingUpdate: {maxUnavailable: 1}}", []string{"updateStrategy.rollingUpdate", "maxUnavailable", "to 0"}},
		{"surge without takeover", address + "takeover: false", []string{"updateStrategy.rollingUpdate.maxSurge", "takeover=true", "maxUnavailable to 1"}},
		{"no time to finish", address + "terminationGracePeriodSeconds: 2", []string{"/terminationGracePeriodSeconds", "minimum"}},
		{"static pod with Secret", "mode: staticPod\nconfig: {source: secret, secret: {name: x}}", []string{"config.source", "static pod", "no Secret"}},
		{"static pod with a CA in an object", "mode: staticPod\nvault: {address: https://vault.example, caSecret: {name: x}}", []string{"static pod", "vault.caCert"}},
		{"installer with Secret as config.yaml", "mode: installer\nconfig: {source: secret, secret: {name: x}}", []string{"config.source", "mode=installer", "no Secret"}},
		{"installer with ServiceAccount", address + "mode: installer", []string{"config.login", "ServiceAccount", "nodeCredentials"}},
		{"installer for another user", node + "runAsUser: 65532", []string{"runAsUser: must be 0 with mode=installer", "mode=staticPod"}},
		{"installer without takeover", node + "takeover: false\nupdateStrategy: {rollingUpdate: {maxSurge: 0}}", []string{"takeover: must be true with mode=installer"}},
		{"installer with two credentials", node + "installer: {credentials: {secretName: x}}", []string{"nodeCredentials, installer.credentials.secretName", "exclude each other"}},
		{"installer without credentials", login + "{roleID: x, secretIDFile: /etc/trousseau-credentials/secret-id}}\nmode: installer", []string{"nodeCredentials", "installer.credentials.secretName"}},
		{"manifests at the root", node + "installer: {manifestDirectory: /manifests}", []string{"/installer/manifestDirectory"}},
		{"socket path too long for the installer", node + "socket: {directory: /run/" + strings.Repeat("x", 80) + "}", []string{"socket.directory: too long for mode=installer", "84 characters"}},
		{"agent of a static pod with ServiceAccount", static + "config: {source: agent}", []string{"config.agent.autoAuth", "ServiceAccount", "token_path"}},
		{"login of a static pod with ServiceAccount", static, []string{"config.login", "ServiceAccount", "nodeCredentials"}},
		{"audit of a static pod", node + "mode: staticPod\ncronJobs: {audit: {enabled: true}}", []string{"cronJobs.audit", "trousseauctl audit"}},
		{"doctor of an installer", node + "cronJobs: {doctor: {enabled: true}}", []string{"cronJobs.doctor", "mode=installer", "kubectl exec"}},
		{"doctor of an agent", address + "config: {source: agent}\ncronJobs: {doctor: {enabled: true}}", []string{"cronJobs.doctor", "config.source=agent", "kubectl exec"}},
		{"re-encryption of an installer", node + "cronJobs: {reencrypt: {enabled: true}}", []string{"cronJobs.reencrypt", "mode=installer"}},
		{"rotation of an installer", node + rotate, []string{"cronJobs.rotateKey", "mode=installer"}},
		{"rotation in an unknown Vault", "config: {source: secret, secret: {name: x}}\n" + rotate, []string{"cronJobs.rotateKey", "vault.address"}},
		{"rotation with another name of Vault", "vault: {address: https://vault.example, tlsServerName: x}\n" + rotate, []string{"cronJobs.rotateKey", "vault.tlsServerName"}},
		{"rotation without token", address + "cronJobs: {rotateKey: {enabled: true}}", []string{"cronJobs.rotateKey.vaultToken.secretName", "required"}},
		{"jobs without etcd", address + "cronJobs: {etcd: {endpoints: []}}", []string{"/cronJobs/etcd/endpoints"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachHelm(t, func(t *testing.T, h helm) {
				_, err := h.tryTemplate(namespace, write(t, image), write(t, tc.values))
				if err == nil {
					t.Fatalf("accepted:\n%s\nwant an error with %q", tc.values, tc.want)
				}
				for _, want := range tc.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("got error %q, want it to contain %q", message(err), want)
					}
				}
			})
		})
	}
}

// message returns Helm's message without the command line.
func message(err error) string {
	_, text, _ := strings.Cut(err.Error(), "exit status 1: ")
	return text
}

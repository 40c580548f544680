// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/documented"

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

// An operator renders a manifest and moves it to a node as documented. What Helm fails to
// render, or renders in another mode, never replaces a manifest that works.
func TestInstallStaticPod(t *testing.T) {
	const good = "image: {repository: registry.example/trousseau}\nvault: {address: https://vault.example}\nmode: staticPod\n" +
		"config: {login: {tokenFile: /etc/trousseau-credentials/token}}\nnodeCredentials: /etc/trousseau-credentials\n"
	files, err := documented.Files("../..")
	if err != nil {
		t.Fatal(err)
	}
	chart, err := filepath.Abs(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	eachHelm(t, func(t *testing.T, h helm) {
		for _, tc := range []struct {
			name, values string
			helm         string // a script instead of Helm
			want         string // in the error; "" for a new manifest
		}{
			{"good", good, "", ""},
			{"values that are refused", "vault: {adress: x}", "", "'adress' not allowed"},
			{"no values", "", "", "image.repository: required"},
			{"another mode", strings.Replace(good, "staticPod", "daemonSet", 1), "", "more than one document"},
			{"the installer's mode", strings.Replace(good, "staticPod", "installer", 1), "", "more than one document"},
			{"Helm is killed", good, "echo 'apiVersion: v1'; kill -KILL $$", "Killed"},
			{"Helm prints nothing", good, "true", "the manifest is empty"},
			{"Helm prints an error", good, "echo Error", "the manifest is not a Pod"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				dir, node := t.TempDir(), t.TempDir()
				manifest := filepath.Join(node, "manifests", "trousseau.yaml")
				if tc.helm == "" {
					tc.helm = "exec " + h.path + ` "$@" --kube-version=` + kubeVersion
				}
				program := filepath.Join(dir, "helm")
				for path, content := range map[string]string{
					manifest:                          "the manifest that works",
					filepath.Join(dir, "values.yaml"): tc.values,
					program:                           "#!/bin/sh\n" + tc.helm + "\n",
				} {
					if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o700)); err != nil {
						t.Fatal(err)
					}
				}
				before, err := os.Stat(manifest)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(trousseauctl(t), filepath.Join(dir, "trousseauctl")); err != nil {
					t.Fatal(err)
				}
				script := strings.NewReplacer("sudo ", "", "/etc/kubernetes", node, "charts/trousseau", chart).Replace(files["install-static-pod.sh"])
				cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
				cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "PATH=" + dir + ":/usr/bin:/bin"}
				out, err := cmd.CombinedOutput()
				if (err == nil) != (tc.want == "") || !strings.Contains(string(out), tc.want) {
					t.Errorf("%v: %s, want %q", err, out, tc.want)
				}

				after, err := os.Stat(manifest)
				if err != nil {
					t.Fatal(err)
				}
				if got := os.SameFile(before, after); got != (tc.want != "") {
					t.Errorf("the manifest is the one from before: %t", got)
				}
				text, err := os.ReadFile(manifest)
				if err != nil {
					t.Fatal(err)
				}
				if tc.want != "" && string(text) != "the manifest that works" {
					t.Errorf("the manifest is\n%s", text)
				}
				if tc.want == "" {
					asPod(t, parse(t, string(text))[0].Object)
				}
			})
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An operator gives the ServiceAccount's token an audience. The API server refuses the
// token then, and with it Vault's review, until Vault has a token_reviewer_jwt as
// docs/vault.md describes. Trousseau is ready without a restart.
func TestAudience(t *testing.T) {
	s := newStage(t, "10 token with an audience of its own")
	s.Vault.CLI("write", "auth/kubernetes/role/trousseau", "audience=vault", "bound_service_account_names=trousseau",
		"bound_service_account_namespaces="+namespace, "token_policies=trousseau", "token_period=24h")
	s.helmDo("install", "serviceAccount: {token: {audience: vault}}\n")
	if out, err := s.node.APIServer.TryKubectl(t.Context(), "", "get", "clusterrolebinding", "trousseau-token-review"); err == nil {
		t.Errorf("the token may review itself, which it cannot:\n%s", out)
	}
	pod := s.schedule("trousseau-audience")
	trousseau := s.attach(pod)
	s.Await(time.Minute, "Vault to refuse the login", trousseau.NotReady("vault refused the login"))
	if err := pod.Ready(t.Context()); err == nil {
		t.Error("the pod is ready")
	}

	s.Write("setup/reviewer.yaml", s.Documented("reviewer.yaml"))
	script := s.Write("setup/audience.sh", s.Documented("audience.sh"))
	cmd := exec.CommandContext(t.Context(), "/bin/sh", script)
	cmd.Dir = filepath.Dir(script)
	cmd.Env = append(s.Vault.AdminEnvironment("https://"+s.Proxy.Addr), "KUBECONFIG="+s.node.APIServer.Kubeconfig(),
		"KUBERNETES_HOST="+s.node.APIServer.URL, "KUBERNETES_CA="+s.CAFile(), "PATH="+s.path()+":/usr/bin:/bin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("audience.sh: %v\n%s", err, out)
	}
	s.mustBeHealthy(pod, trousseau)
	token, err := os.ReadFile(filepath.Join(pod.Volume("token"), "token"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.node.APIServer.TryKubectl(t.Context(), "", "auth", "whoami", "--token="+string(token)); err == nil || !strings.Contains(err.Error(), "Unauthorized") {
		t.Errorf("the API server accepts Vault's token: %s, %v", out, err)
	}
	s.mustEnd(pod)
}

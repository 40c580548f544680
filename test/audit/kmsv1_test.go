// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// bothVersions has Secrets under Trousseau, and ConfigMaps still under a plugin of KMS v1.
const bothVersions = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - kms: {apiVersion: v2, name: trousseau, endpoint: "unix://%s", timeout: 3s}
  - identity: {}
- resources: [configmaps]
  providers:
  - kms: {apiVersion: v1, name: old, endpoint: "unix://%s", timeout: 20s}
  - identity: {}
`

// A cluster moves from a plugin of KMS v1 to Trousseau, with the same transit key. In
// the same etcd is another API server, with a prefix of its own. A min_decryption_version
// that only Trousseau's key_ids allow would lose data of both.
func TestKMSv1AndAnotherPrefix(t *testing.T) {
	bed := testbed.New(t, &report, "7 KMS v1 beside v2, another prefix")
	c := testbed.NewCluster(bed, testbed.Options{TrousseauFlags: []string{"--probe-interval=1s"}})
	node := c.Nodes[0]
	node.Trousseau.Start()
	encrypted := []string{
		"--encryption-provider-config=" + bed.Write("both.yaml", fmt.Sprintf(bothVersions, node.Trousseau.Socket, serveOldPlugin(t, c))),
		"--encryption-provider-config-automatic-reload=true", // one health check for all plugins
		"--feature-gates=KMSv1=true",
	}
	node.APIServer.Args = append(node.APIServer.Args, encrypted...)
	node.APIServer.Start() // Vault's login needs it
	c.SetUpVault()
	node.SetUpAgent()
	node.Agent.Start()
	node.Trousseau.AwaitReady()
	other := bed.NewAPIServer("apiserver-other", c.Etcd, bed.NewCredentials(), append(encrypted, "--etcd-prefix=/kubernetes.io")...)
	other.Start()
	for _, api := range []*testbed.APIServer{node.APIServer, other} {
		api.AwaitReady()
	}
	create(t, other, "other-", 2)
	other.Stop()
	configMaps := node.APIServer.Client.CoreV1().ConfigMaps(metav1.NamespaceDefault)
	store := func(name string) {
		configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := configMaps.Create(t.Context(), configMap, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	store("under-1")
	rotate(t, c)
	create(t, node.APIServer, "new-", 3)
	store("under-2")
	args := []string{"--endpoints", c.Etcd.URL}
	both := append(slices.Clone(args), "--prefix", "/registry", "--prefix", "/kubernetes.io")
	may := func(args []string, want int) found {
		t.Helper()
		f, code := audit(t, args...)
		if code != 0 || len(f.TransitKeys) != 1 || f.TransitKeys[0].MinDecryptionVersionMayBecome != want {
			t.Fatalf("%v: exit code %d, %+v, findings %+v, want min_decryption_version %d", args, code, f.TransitKeys, f.Findings, want)
		}
		return f
	}
	f := may(args, 1)
	if len(f.Findings) != 1 || f.Findings[0].ID != "outside-prefixes" || f.Findings[0].Subject != "/kubernetes.io/" || f.Findings[0].Objects < 2 {
		t.Errorf("findings %+v, want a warning about /kubernetes.io/", f.Findings)
	}
	if len(f.Unattributed) != 2 || f.Unattributed[1].Version != 1 {
		t.Errorf("versions that KMS v1 needs: %+v, want 2 and 1", f.Unattributed)
	}
	bed.Observe("KMS v1 needs %+v, %d objects outside of the prefix", f.Unattributed, f.Findings[0].Objects)
	if f := may(both, 1); len(f.Findings) != 0 {
		t.Errorf("with both prefixes: findings %+v, want none", f.Findings)
	}

	verify := append(slices.Clone(both), "--verify", "--vault-config", node.ConfigFile)
	if f, code := audit(t, verify...); code != 0 || f.Drill.Readable != f.Drill.Seeds {
		t.Errorf("exit code %d, %+v, want all readable, also those of KMS v1", code, f.Drill)
	}
	// What Trousseau's key_ids alone would have allowed makes data unreadable, and the
	// drill says so.
	minimum := func(version int) {
		c.Vault.CLI("write", "transit/keys/"+testbed.Key+"/config", fmt.Sprintf("min_decryption_version=%d", version))
	}
	minimum(2)
	f, code := audit(t, verify...)
	if code != 3 || f.Drill.Unknown == 0 || f.Drill.Lost == 0 {
		t.Errorf("exit code %d, %+v, want data of KMS v1 not verified, and lost Secrets under the other prefix", code, f.Drill)
	}
	minimum(1)

	// Nothing is left under version 1 but what is outside of the prefix, then nothing.
	for key, value := range c.Etcd.List("/registry/configmaps/") {
		if bytes.Contains(value, []byte("vault:v1:")) {
			etcdctl(t, bed, append(slices.Clone(args), "del", key)...)
		}
	}
	may(args, 1)
	etcdctl(t, bed, append(slices.Clone(args), "del", "--prefix", "/kubernetes.io/")...)
	may(args, 2)
	minimum(2)
	if f, code := audit(t, append(slices.Clone(args), "--verify", "--vault-config", node.ConfigFile)...); code != 0 || f.Drill.Readable != f.Drill.Seeds {
		t.Errorf("with what is allowed: exit code %d, %+v, want all readable", code, f.Drill)
	}
}

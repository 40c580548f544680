// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator follows the documentation from top to bottom on a running cluster with an
// existing Secret. Only addresses, paths and the agent's interval differ from the
// documentation.
func TestSetUpAsDocumented(t *testing.T) {
	bed := testbed.New(t, &report, "1 set up as documented")
	c := testbed.NewCluster(bed, testbed.Options{})
	node := c.Nodes[0]
	api, trousseau := node.APIServer, node.Trousseau
	api.Start()
	api.AwaitReady()
	before := newSecret(t, "before")
	before.create(api)

	// The sections of the documentation, in order.
	c.SetUpVault()
	node.SetUpAgent()
	node.Agent.Start()
	bed.Await(30*time.Second, "config.yaml to be rendered", node.Rendered("token: "))
	checkConfig(t, bed, node)
	began := time.Now()
	trousseau.Start()
	trousseau.AwaitReady()
	ready := time.Since(began)
	mustBeLeast(t, c)

	began = time.Now()
	api.Stop()
	node.Encrypt()
	api.Start()
	api.AwaitPage("/readyz/kms-providers")
	api.AwaitReady()
	bed.Observe("trousseau ready %s after its start; kube-apiserver stopped, given EncryptionConfiguration and ready after %s",
		ready.Round(time.Millisecond), time.Since(began).Round(100*time.Millisecond))

	after := newSecret(t, "after")
	after.create(api)
	after.mustBeEncrypted(c.Etcd, trousseau.KeyID())
	after.mustRead(api)
	bed.Observe("etcd holds %s… with key_id %s and no plaintext; kubectl reads the Secret", testbed.StoredPrefix, trousseau.KeyID())

	if stored := c.Etcd.Stored("default", before.name); !bytes.Contains(stored, before.value) {
		t.Error("the existing Secret is not in plaintext in etcd; this test proves nothing")
	}
	before.mustRead(api)
	api.KubectlWithInput(api.Kubectl("get", "secrets", "-A", "-o", "json"), "replace", "-f", "-")
	before.mustBeEncrypted(c.Etcd, trousseau.KeyID())
	before.mustRead(api)
	if ids := c.Etcd.KeyIDs(); len(ids) != 1 {
		t.Errorf("Secrets by key_id: %v, want all under one", ids)
	}
	bed.Observe("the existing Secret was readable, and encrypted after kubectl replace")
}

// checkConfig runs trousseau check-config on the rendered file.
func checkConfig(t *testing.T, bed *testbed.Bed, node *testbed.Node) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), bed.Binary, "check-config", node.ConfigFile).CombinedOutput()
	if err != nil {
		t.Fatalf("check-config: %v: %s", err, out)
	}
}

// mustBeLeast tries operations that a stolen token must not permit.
func mustBeLeast(t *testing.T, c *testbed.Cluster) {
	t.Helper()
	token := c.Vault.CLI("kv", "get", "-field=vaulttoken", "secret/trousseau/config")
	for _, args := range [][]string{
		{"write", "-f", "transit/keys/" + testbed.Key + "/rotate"},
		{"delete", "transit/keys/" + testbed.Key},
		{"read", "transit/export/encryption-key/" + testbed.Key},
		{"list", "transit/keys"},
		{"kv", "get", "secret/trousseau/config"},
	} {
		if _, err := c.Vault.Try(token, "", args...); err == nil || !strings.Contains(err.Error(), "Code: 403") {
			t.Errorf("vault %s with Trousseau's token: %v, want it denied (403)", strings.Join(args, " "), err)
		}
	}
}

// secret is a Secret with a value that cannot be in etcd by chance.
type secret struct {
	t     *testing.T
	name  string
	value []byte
}

func newSecret(t *testing.T, name string) secret {
	value := make([]byte, 24)
	rand.Read(value)
	return secret{t: t, name: name, value: []byte(hex.EncodeToString(value))}
}

func (s secret) create(api *testbed.APIServer) {
	s.t.Helper()
	api.Kubectl("create", "secret", "generic", s.name, "--from-literal=password="+string(s.value))
}

func (s secret) mustRead(api *testbed.APIServer) {
	s.t.Helper()
	got, err := base64.StdEncoding.DecodeString(api.Kubectl("get", "secret", s.name, "-o", "jsonpath={.data.password}"))
	if err != nil || !bytes.Equal(got, s.value) {
		s.t.Fatalf("kubectl get secret %s: %q %v, want what was written", s.name, got, err)
	}
}

// mustBeEncrypted checks the Secret's value in etcd.
func (s secret) mustBeEncrypted(etcd *testbed.Etcd, keyID string) {
	s.t.Helper()
	stored := etcd.Stored("default", s.name)
	object, err := testbed.Decode(stored)
	if err != nil {
		s.t.Fatal(err)
	}
	if object.GetKeyID() != keyID {
		s.t.Errorf("Secret %s is under key_id %q in etcd, want %q, as in Status", s.name, object.GetKeyID(), keyID)
	}
	if object.GetEncryptedDEKSourceType().String() != "HKDF_SHA256_XNONCE_AES_GCM_SEED" || !bytes.HasPrefix(object.GetEncryptedDEKSource(), []byte("vault:v")) {
		s.t.Errorf("Secret %s: its seed is %s %.12q…, want one encrypted by Vault", s.name, object.GetEncryptedDEKSourceType(), object.GetEncryptedDEKSource())
	}
	if err := holdsNothingOf(stored, s.value); err != nil {
		s.t.Errorf("Secret %s: %v", s.name, err)
	}
	for _, word := range []string{"password", "Opaque", "kubectl-create", s.name} {
		if bytes.Contains(stored, []byte(word)) {
			s.t.Errorf("Secret %s: etcd contains the word %q in plaintext", s.name, word)
		}
	}
}

// holdsNothingOf searches the stored value for any eight bytes of the plaintext or
// its base64; fewer could occur by chance.
func holdsNothingOf(stored, plaintext []byte) error {
	const width = 8
	for _, text := range [][]byte{plaintext, []byte(base64.StdEncoding.EncodeToString(plaintext))} {
		for i := range len(text) - width + 1 {
			if bytes.Contains(stored, text[i:i+width]) {
				return fmt.Errorf("bytes %d to %d of the plaintext are in etcd", i, i+width)
			}
		}
	}
	return nil
}

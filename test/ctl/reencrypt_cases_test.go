// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// reencrypts returns the arguments for a cluster with one node.
func reencrypts(t *testing.T, c *testbed.Cluster, more ...string) []string {
	t.Helper()
	return append([]string{"reencrypt", "-o", "json", "--wait", "2m",
		"--kubeconfig", c.Write("admin.conf", c.Nodes[0].APIServer.Kubectl("config", "view", "--raw", "--flatten")),
		"--ops", opsAddr(t, c.Nodes[0].Trousseau)}, more...)
}

// reencryptEnds runs reencrypt, whose exit code must be this.
func reencryptEnds(t *testing.T, code int, args ...string) reencrypted {
	t.Helper()
	c := start(t, args...)
	if got := c.wait(); got != code {
		t.Fatalf("%s: exit code %d, want %d: %s\n%s", strings.Join(args, " "), got, code, c.stderr, c.stdout)
	}
	return c.report(t)
}

// rotateKey adds a version to the key, and waits until trousseau has it.
func rotateKey(c *testbed.Cluster) {
	trousseau := c.Nodes[0].Trousseau
	before := trousseau.KeyID()
	c.Vault.CLI("write", "-f", "transit/keys/"+testbed.Key+"/rotate")
	c.Await(15*time.Second, "trousseau to have the new version", func(context.Context) error {
		if trousseau.KeyID() == before {
			return errors.New("still " + before)
		}
		return nil
	})
}

// The provider gets another name, on the same plugin: everything is under the old name and the current key_id. It
// must be rewritten, by a walk and with etcd, which sees nothing else that is stale.
func TestReencryptRenamedProvider(t *testing.T) {
	bed := testbed.New(t, &report, "5 provider renamed")
	c := testbed.SetUp(bed, testbed.Options{TrousseauFlags: []string{"--probe-interval=1s"}})
	api := c.Nodes[0].APIServer
	const n = 50
	createSecrets(t, api, "old-", n)

	file := filepath.Join(c.Nodes[0].Dir, "encryption-config.yaml")
	rename := func(names ...string) {
		t.Helper()
		text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n"
		for _, name := range names {
			text += fmt.Sprintf("  - kms: {apiVersion: v2, name: %s, endpoint: \"unix://%s\"}\n", name, c.Nodes[0].Trousseau.Socket)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		api.Restart()
	}
	underName := func(name string) (count int) {
		for _, value := range c.Etcd.List("/registry/secrets/") {
			if bytes.HasPrefix(value, []byte("k8s:enc:kms:v2:"+name+":")) {
				count++
			}
		}
		return count
	}

	rename("second", "trousseau")
	r := reencryptEnds(t, 0, reencrypts(t, c, "--endpoints", c.Etcd.URL, "--via", "walk")...)
	if got := r.Report.Resources[0]; got.Rewritten != n || got.Provider != "second" || underName("second") != n {
		t.Errorf("with etcd: %+v, and %d under the new name; want %d", got, underName("second"), n)
	}
	rename("third", "second")
	r = reencryptEnds(t, 0, reencrypts(t, c, "--via", "walk", "--encryption-config", file)...)
	if got := r.Report.Resources[0]; got.Rewritten != n || got.Provider != "third" || underName("third") != n {
		t.Errorf("without etcd: %+v, and %d under the new name; want %d", got, underName("third"), n)
	}
	r = reencryptEnds(t, 0, reencrypts(t, c, "--via", "walk")...)
	if got := r.Report.Resources[0]; got.Current != n || got.Provider != "third" {
		t.Errorf("again: %+v, want nothing to do", got)
	}
	other := bed.Write("other.yaml", string(read(t, file))+"# another file\n")
	if c := start(t, reencrypts(t, c, "--encryption-config", other, "--wait", "0")...); c.wait() != 1 || !strings.Contains(c.stderr.String(), "has loaded another EncryptionConfiguration") {
		t.Errorf("with another EncryptionConfiguration: %s", c.stderr)
	}
	// A resource that is not in EncryptionConfiguration stays in the clear.
	r = reencryptEnds(t, 3, reencrypts(t, c, "--via", "walk", "--resources", "configmaps")...)
	if len(r.Findings) != 1 || r.Findings[0].ID != "not-encrypted" {
		t.Errorf("configmaps: findings %+v, want that they are not encrypted", r.Findings)
	}
	bed.Observe("%d Secrets rewritten under a new name of the same plugin, twice", n)
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// refusing is a policy that refuses every update in the namespace guarded.
const refusing = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: guarded
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [UPDATE], resources: [secrets]}
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: guarded}}
  validations:
  - expression: "false"
    message: ask the owners first
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: guarded
spec:
  policyName: guarded
  validationActions: [Deny]
`

// A policy refuses 110 of 423 Secrets. All of the others are rewritten, by a walk and after a storage migration that
// ends at the first refusal; without the policy, the storage migration rewrites them all.
func TestReencryptRefused(t *testing.T) {
	bed := testbed.New(t, &report, "5 reencrypt refused")
	bed.NeedsKubernetes(37, "storagemigration.k8s.io/v1 is new in 1.37")
	c := testbed.SetUp(bed, testbed.Options{TrousseauFlags: []string{"--probe-interval=1s"}})
	api := c.Nodes[0].APIServer
	const n, refused = 423, 110
	createSecrets(t, api, "free-", n-refused)
	api.Kubectl("create", "namespace", "guarded")
	for i := range refused {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("guarded-", i)}}
		if _, err := api.Client.CoreV1().Secrets("guarded").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	api.Kubectl("apply", "-f", bed.Write("policy.yaml", refusing))
	bed.Await(30*time.Second, "the policy to be in force", func(ctx context.Context) error {
		if _, err := api.TryKubectl(ctx, "", "annotate", "secret", "-n", "guarded", "guarded-0", "a=b", "--dry-run=server", "--overwrite"); err == nil {
			return errors.New("an update is not refused")
		}
		return nil
	})
	v1 := c.Nodes[0].Trousseau.KeyID()
	rotateKey(c)
	v2 := c.Nodes[0].Trousseau.KeyID()

	r := reencryptEnds(t, 3, reencrypts(t, c, "--dry-run")...)
	if got := r.Report.Resources[0]; got.Objects != n || len(got.Failures) != refused || c.Etcd.KeyIDs()[v1] != n {
		t.Errorf("dry run: %d objects, %d failures, %v; want %d, %d, and nothing written", got.Objects, len(got.Failures), c.Etcd.KeyIDs(), n, refused)
	}
	r = reencryptEnds(t, 3, reencrypts(t, c, "--via", "walk", "--max-refusals", "50", "--concurrency", "1")...)
	if got := r.Report.Resources[0]; len(r.Findings) != 2 || r.Findings[0].ID != "stopped" || len(got.Failures) != 50 || got.Rewritten != n-refused {
		t.Errorf("at most 50 in a row: findings %+v, %d failures, %d rewritten", r.Findings, len(got.Failures), got.Rewritten)
	}
	r = reencryptEnds(t, 3, reencrypts(t, c, "--via", "walk")...)
	got := r.Report.Resources[0]
	if got.Objects != n || got.Current != n-refused || len(got.Failures) != refused ||
		!strings.Contains(got.Failures[0].Reason, "ValidatingAdmissionPolicy 'guarded' with binding 'guarded' denied request: ask the owners first") {
		t.Errorf("%d objects, %d current, %d failures, want %d, %d, %d, with the policy's words: %+v",
			got.Objects, got.Current, len(got.Failures), n, n-refused, refused, got.Failures[:1])
	}

	// Without kube-controller-manager a migration does not begin; see the unit tests.
	c.NewControllerManager().Start()
	r = reencryptEnds(t, 3, reencrypts(t, c, "--via", "migration")...)
	if len(r.Findings) != 1 || r.Findings[0].ID != "migration-failed" || !strings.Contains(r.Findings[0].Text, "ask the owners first") {
		t.Errorf("migration: findings %+v, want that it failed, with the policy's words", r.Findings)
	}
	r = reencryptEnds(t, 3, reencrypts(t, c)...)
	if got := r.Report.Resources[0]; len(got.Failures) != refused || got.Current < n-refused || !strings.Contains(got.Note, "has failed") {
		t.Errorf("auto: note %q, %d current, %d failures; want every object reached", got.Note, got.Current, len(got.Failures))
	}

	api.Kubectl("delete", "validatingadmissionpolicybinding", "guarded")
	bed.Await(30*time.Second, "the policy to be gone", func(ctx context.Context) error {
		_, err := api.TryKubectl(ctx, "", "annotate", "secret", "-n", "guarded", "guarded-0", "a=b", "--dry-run=server", "--overwrite")
		return err
	})
	r = reencryptEnds(t, 0, reencrypts(t, c)...)
	if got := r.Report.Resources[0]; got.Migration == "" || got.Provider != "trousseau" || len(r.Findings) != 1 || r.Findings[0].ID != "not-proven" {
		t.Errorf("migrated: %+v, findings %+v", got, r.Findings)
	}
	all := c.Etcd.KeyIDs()
	if len(all) != 1 || all[v2] < n {
		t.Errorf("after the migration, Secrets by key_id: %v, want all under %s", all, v2)
	}
	rotateKey(c)
	r = reencryptEnds(t, 0, reencrypts(t, c, "--endpoints", c.Etcd.URL)...)
	if got := r.Report.Resources[0]; got.Migration == "" || len(r.Findings) != 0 || r.Report.Audit == nil || r.Report.UnderOther != 0 {
		t.Errorf("migrated with etcd: %+v, findings %+v", got, r.Findings)
	}
	if after := c.Etcd.KeyIDs(); !maps.Equal(after, map[string]int{c.Nodes[0].Trousseau.KeyID(): all[v2]}) {
		t.Errorf("after the second migration, Secrets by key_id: %v", after)
	}
	bed.Observe("%d Secrets, %d of them refused by a policy: the others rewritten; without it, all migrated by kube-controller-manager", n, refused)
}

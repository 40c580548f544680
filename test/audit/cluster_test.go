// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/internal/testkit/storedtest"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An auditor audits a cluster with more than 10,000 Secrets under three versions of
// the key. The reported min_decryption_version is then tested: with that value
// everything is readable, with the next one not.
func TestAuditOfACluster(t *testing.T) {
	bed := testbed.New(t, &report, "4 audit of 10,000 Secrets")
	c := testbed.SetUp(bed, testbed.Options{TrousseauFlags: []string{"--probe-interval=1s"}})
	node := c.Nodes[0]
	const each = 3500
	for version := 1; version <= 3; version++ {
		if version > 1 {
			rotate(t, c)
		}
		create(t, node.APIServer, fmt.Sprintf("v%d-", version), each)
	}
	// As other runs of kube-apiserver would write them, each under its own seed.
	c.Etcd.LeaveSecrets(node.Trousseau, "left-", 100)

	endpoints := []string{"--endpoints", c.Etcd.URL}
	if _, err := testbed.Trousseauctl(); err != nil { // build it before the time is measured
		t.Fatal(err)
	}
	began := time.Now()
	live, code := audit(t, endpoints...)
	bed.Observe("%d objects audited live in %s", live.Objects, time.Since(began).Round(10*time.Millisecond))
	if code != 0 || len(live.Findings) != 0 {
		t.Errorf("exit code %d, findings %+v, want none", code, live.Findings)
	}
	if got, want := live.byKeyID(), c.Etcd.KeyIDs(); !maps.Equal(got, want) || len(got) != 3 {
		t.Errorf("by key_id %v, etcdctl counts %v", got, want)
	}
	if newest := live.KeyIDs[0]; newest.Version != 3 || newest.Objects != each+100 || newest.Seeds != 101 {
		t.Errorf("of the newest version: %+v, want %d objects under 101 seeds", newest, each+100)
	}
	if got := live.TransitKeys[0].MinDecryptionVersionMayBecome; got != 1 {
		t.Errorf("min_decryption_version may become %d, want 1", got)
	}

	backup := filepath.Join(bed.Dir, "backup.db")
	etcdctl(t, bed, append(endpoints, "snapshot", "save", backup)...)
	saved, _ := audit(t, "--snapshot", backup)
	if !maps.Equal(saved.byKeyID(), live.byKeyID()) {
		t.Errorf("the backup has %v, etcd %v", saved.byKeyID(), live.byKeyID())
	}
	throughVault := []string{"--verify", "--vault-config", node.ConfigFile}
	throughPlugin := []string{"--verify", "--plugin", "unix://" + node.Trousseau.Socket}
	for _, through := range [][]string{throughVault, throughPlugin} {
		if f, code := audit(t, append(through, "--snapshot", backup)...); code != 0 || f.Drill.Readable != 103 || f.Drill.Seeds != 103 {
			t.Errorf("%v: %+v, exit code %d, want 103 seeds readable", through, f.Drill, code)
		}
	}

	// A plaintext Secret and a broken one.
	for key, value := range map[string][]byte{"clear": storedtest.Protobuf(), "broken": []byte(testbed.StoredPrefix + "x")} {
		if err := put(t.Context(), c.Etcd, "/registry/secrets/default/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	f, code := audit(t, append(endpoints, "--html", filepath.Join(bed.Dir, "audit.html"))...)
	if code != 3 || len(f.Findings) != 2 || f.Findings[0].Examples[0] != "/registry/secrets/default/clear" || f.Findings[1].Examples[0] != "/registry/secrets/default/broken" {
		t.Errorf("exit code %d, %+v, want the plaintext and the broken Secret", code, f.Findings)
	}
	if f.TransitKeys[0].MinDecryptionVersionMayBecome != 0 {
		t.Error("with a broken Secret, the audit still reports a safe min_decryption_version")
	}
	etcdctl(t, bed, append(endpoints, "del", "/registry/secrets/default/clear")...)
	etcdctl(t, bed, append(endpoints, "del", "/registry/secrets/default/broken")...)

	// Delete all of version 1; then version 2 is the oldest one needed.
	etcdctl(t, bed, append(endpoints, "del", "--prefix", "/registry/secrets/default/v1-")...)
	f, _ = audit(t, endpoints...)
	safe := f.TransitKeys[0].MinDecryptionVersionMayBecome
	if safe != 2 {
		t.Fatalf("min_decryption_version may become %d, want 2", safe)
	}
	minimum := func(version int) {
		c.Vault.CLI("write", "transit/keys/"+testbed.Key+"/config", fmt.Sprintf("min_decryption_version=%d", version))
	}
	minimum(safe)
	for _, through := range [][]string{throughVault, throughPlugin} {
		if f, code := audit(t, append(through, endpoints...)...); code != 0 || f.Drill.Lost != 0 || f.Drill.Unknown != 0 {
			t.Errorf("with min_decryption_version %d, %v: %+v, exit code %d, want all readable", safe, through, f.Drill, code)
		}
	}
	minimum(safe + 1)
	for _, through := range [][]string{throughVault, throughPlugin} {
		f, code := audit(t, append(through, endpoints...)...)
		if code != 3 || f.Drill.Lost != 1 || f.Drill.LostObjects != each {
			t.Errorf("with min_decryption_version %d, %v: %+v, exit code %d, want the %d of version 2 lost", safe+1, through, f.Drill, code, each)
		}
	}
	// The backup is partly unreadable too: the audit warns about that.
	f, _ = audit(t, append(throughVault, "--snapshot", backup)...)
	if f.Drill.Lost != 2 || f.Drill.LostObjects != 2*each {
		t.Errorf("of the backup: %+v, want versions 1 and 2 lost", f.Drill)
	}
	bed.Observe("min_decryption_version %d is safe as reported, %d loses %d Secrets, and %d in the backup", safe, safe+1, each, f.Drill.LostObjects)
	stdout, stderr, _ := run(t, append(throughVault, endpoints...)...)
	if testbed.HoldsToken(stdout + stderr) {
		t.Error("the output contains a token")
	}
}

// rotate adds a version to the key and waits until kube-apiserver uses it for
// writes.
func rotate(t *testing.T, c *testbed.Cluster) {
	t.Helper()
	before := c.Nodes[0].Trousseau.KeyID()
	c.Vault.CLI("write", "-f", "transit/keys/"+testbed.Key+"/rotate")
	c.Await(2*time.Minute, "kube-apiserver to write under the new version", func(ctx context.Context) error {
		// Reading this makes it call the plugin's Status.
		if _, err := c.Nodes[0].APIServer.Page(ctx, "/readyz/kms-providers"); err != nil {
			return err
		}
		name := fmt.Sprintf("trial-%d", time.Now().UnixNano())
		secrets := c.Nodes[0].APIServer.Client.CoreV1().Secrets(metav1.NamespaceDefault)
		if _, err := secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			return err
		}
		object, err := testbed.Decode(c.Etcd.Stored(metav1.NamespaceDefault, name))
		if err != nil {
			return err
		}
		if err := secrets.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			return err
		}
		if object.GetKeyID() == before {
			return errors.New("it still writes under " + before)
		}
		return nil
	})
}

func create(t *testing.T, api *testbed.APIServer, prefix string, n int) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for i := range n {
		group.Go(func() error {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(prefix, i)}, StringData: map[string]string{"value": "x"}}
			_, err := api.Client.CoreV1().Secrets(metav1.NamespaceDefault).Create(ctx, secret, metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

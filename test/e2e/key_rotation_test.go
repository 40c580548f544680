// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/uuid"
	kmsservice "k8s.io/kms/pkg/service"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator rotates the transit key under load, rewrites all Secrets as described
// in docs/operations.md and then disallows the old version. Shortened: Trousseau
// checks for a new version every second instead of every thirty. kube-apiserver's
// own interval is unchanged: because kubelet reads /readyz, it calls Status every 20
// seconds instead of every minute.
func TestKeyRotation(t *testing.T) {
	bed := testbed.New(t, &report, "3 key rotation")
	c := testbed.SetUp(bed, testbed.Options{TrousseauFlags: []string{"--probe-interval=1s"}})
	node := c.Nodes[0]
	api, trousseau := node.APIServer, node.Trousseau

	const n = 20
	secrets := create(t, api, "old-", n)
	v1 := trousseau.KeyID()
	sealed := seal(t, trousseau)
	if got := c.Etcd.KeyIDs(); !maps.Equal(got, map[string]int{v1: n}) {
		t.Fatalf("Secrets by key_id: %v, want %d under %s", got, n, v1)
	}

	v2 := rotateKeyUnderLoad(t, c, v1)
	if err := unseal(t.Context(), trousseau, sealed); err != nil {
		t.Errorf("decrypting older data after the rotation: %v", err)
	}
	before := c.Etcd.KeyIDs()
	if before[v1] != n || before[v2] == 0 || len(before) != 2 {
		t.Errorf("Secrets by key_id after the rotation: %v, want %d under %s, some under %s and no others", before, n, v1, v2)
	}
	secrets.mustBeReadable(t, api, "after the rotation")
	restartWithout(t, c, secrets, "both versions")

	// The documented way to rewrite them all.
	api.KubectlWithInput(api.Kubectl("get", "secrets", "-A", "-o", "json"), "replace", "-f", "-")
	after := c.Etcd.KeyIDs()
	if after[v2] < n || len(after) != 1 {
		t.Errorf("Secrets by key_id after rewriting them: %v, want all under %s", after, v2)
	}
	secrets.mustBeReadable(t, api, "after rewriting")
	c.Observe("Secrets under the old version: %d after the rotation, %d after the documented rewrite; under the new one: %d, then %d",
		before[v1], after[v1], before[v2], after[v2])

	c.Vault.CLI("write", "transit/keys/"+testbed.Key+"/config", "min_decryption_version=2")
	if err := unseal(t.Context(), trousseau, sealed); status.Code(err) != codes.FailedPrecondition ||
		!strings.Contains(err.Error(), "this key version may no longer be used") {
		t.Errorf("decrypting with the disallowed version: %v, want FailedPrecondition; this test proves nothing", err)
	}
	awaitProof(t, c, trousseau)
	restartWithout(t, c, secrets, "only the new version allowed,")
	create(t, api, "new-", 1).mustBeReadable(t, api, "with the old version disallowed")
}

// rotateKeyUnderLoad rotates the key and returns the key_id that kube-apiserver uses
// for writes afterwards.
func rotateKeyUnderLoad(t *testing.T, c *testbed.Cluster, v1 string) (v2 string) {
	t.Helper()
	api, trousseau := c.Nodes[0].APIServer, c.Nodes[0].Trousseau
	processes := c.PIDs()
	load := c.StartLoad(loadOn(c.Nodes[0]))
	load.AwaitMore(20)

	c.Vault.CLI("write", "-f", "transit/keys/"+testbed.Key+"/rotate")
	noticed := c.Await(10*time.Second, "Trousseau to report the new version", func(ctx context.Context) error {
		announced, err := trousseau.KMS.Status(ctx)
		if err == nil && announced.KeyID == v1 {
			err = errors.New("it still reports " + v1)
		}
		if err == nil {
			v2 = announced.KeyID
		}
		return err
	})
	if !strings.Contains(v2, "/"+testbed.Key+"/v2@") {
		t.Errorf("key_id after the rotation: %s, want version 2", v2)
	}
	create(t, api, "during-", 1)
	picked := c.Await(time.Minute, "kube-apiserver to write under the new version", func(ctx context.Context) error {
		if _, err := api.Page(ctx, "/readyz/kms-providers"); err != nil {
			// A rotation must not make a single probe fail.
			t.Errorf("during the rotation: %v", err)
		}
		if err := write(ctx, api, "during-0"); err != nil {
			return err
		}
		object, err := testbed.Decode(c.Etcd.Stored("default", "during-0"))
		if err == nil && object.GetKeyID() != v2 {
			err = fmt.Errorf("it writes under %s", object.GetKeyID())
		}
		return err
	})
	load.AwaitMore(20)

	tally := load.Stop()
	c.Count(tally.Operations(), tally.Failures())
	load.MustHaveNoFailures("during the rotation")
	c.MustBeSameProcesses(processes)
	c.Observe("reported %s after the rotation, used by kube-apiserver %s later; no process restarted",
		noticed.Round(time.Millisecond), picked.Round(100*time.Millisecond))
	c.Observe("during that, Secrets: %s; Encrypt and Decrypt: %s", tally.Secrets, tally.KMS)
	return v2
}

// restartWithout restarts the API server, so that its seed cache is empty, and reads
// the Secrets.
func restartWithout(t *testing.T, c *testbed.Cluster, secrets remembered, with string) {
	t.Helper()
	api, trousseau := c.Nodes[0].APIServer, c.Nodes[0].Trousseau
	before := trousseau.MustMetric("trousseau_kms_requests_total", "method", "Decrypt", "code", "OK")
	api.Restart()
	secrets.mustBeReadable(t, api, "after a restart of the API server, with "+with)
	asked := trousseau.MustMetric("trousseau_kms_requests_total", "method", "Decrypt", "code", "OK") - before
	if asked == 0 {
		t.Errorf("with %s: the restarted API server read Secrets without decrypting a seed", with)
	}
	c.Count(len(secrets), 0)
	c.Observe("API server restarted, all %d Secrets read with %s after %.0f seeds were decrypted", len(secrets), with, asked)
}

// awaitProof waits until Trousseau has proven the key after now and reports no
// trouble.
func awaitProof(t *testing.T, c *testbed.Cluster, trousseau *testbed.Trousseau) {
	t.Helper()
	began := float64(time.Now().UnixMilli()) / 1000
	c.Await(10*time.Second, "the key to be proven again", func(ctx context.Context) error {
		proven, _, err := trousseau.Metric(ctx, "trousseau_last_proof_timestamp_seconds")
		if err == nil && proven <= began {
			err = fmt.Errorf("it was last proven %.1f s before", began-proven)
		}
		return errors.Join(err, trousseau.Ready(ctx))
	})
}

// seal encrypts a seed with the plugin.
func seal(t *testing.T, trousseau *testbed.Trousseau) *kmsservice.DecryptRequest {
	t.Helper()
	answer, err := trousseau.KMS.Encrypt(t.Context(), string(uuid.NewUUID()), make([]byte, 32))
	if err != nil {
		t.Fatalf("encrypting a seed: %v", err)
	}
	return &kmsservice.DecryptRequest{Ciphertext: answer.Ciphertext, KeyID: answer.KeyID, Annotations: answer.Annotations}
}

// unseal decrypts it with the plugin.
func unseal(ctx context.Context, trousseau *testbed.Trousseau, sealed *kmsservice.DecryptRequest) error {
	_, err := trousseau.KMS.Decrypt(ctx, string(uuid.NewUUID()), sealed)
	return err
}

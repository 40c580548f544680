// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator runs three control-plane nodes, each with its own kube-apiserver,
// Trousseau and Vault Agent, on one etcd and one Vault, and rotates the key. The API
// servers notice one after the other; in between, each reads what the others have
// written. Shortened: --probe-interval=1s instead of 30s. The API servers are asked
// for /readyz/kms-providers in turn, so that they check at least every 20 s instead
// of once a minute.
func TestThreeControlPlaneNodes(t *testing.T) {
	bed := testbed.New(t, &report, "6 three control-plane nodes")
	c := testbed.SetUp(bed, testbed.Options{ControlPlanes: 3, TrousseauFlags: []string{"--probe-interval=1s"}})
	first := c.Nodes[0].Trousseau.KeyID()
	for _, n := range c.Nodes {
		mustAnnounce(t, n, first)
	}
	bed.Observe("all three report %s", first)
	crossings := startCrossings(t, c)
	crossings.awaitMore(some)

	announced := []string{first}
	late := 0
	// By chance, all API servers may check at the same time; then repeat.
	for range 3 {
		announced = append(announced, rotate(t, c, crossings, announced[len(announced)-1]))
		if late = lateWrites(t, c, announced); late > 0 {
			break
		}
	}
	crossings.stop()
	count := crossings.count(time.Time{})
	bed.Count(count.Operations, count.Failures)
	bed.Observe("Secrets written through one and read through all three: %s", count)
	bed.Observe("%d of them were written under the old key_id after the first under the new one", late)
	if count.Failures > 0 {
		t.Errorf("%s; want no failures", count)
	}
	if late == 0 {
		t.Error("the API servers always changed to the new key_id together; this test proves nothing")
	}
	// The first Secret is still readable through all.
	for _, n := range c.Nodes {
		n.APIServer.Kubectl("get", "secret", crossingName(0))
		mustAnnounce(t, n, announced[len(announced)-1])
	}
}

// some is a number of crossings large enough to show the current state.
const some = 30

// rotate rotates the key and returns the new key_id once all API servers use it for
// writes.
func rotate(t *testing.T, c *testbed.Cluster, crossings *calls, before string) (after string) {
	t.Helper()
	c.Vault.CLI("write", "-f", "transit/keys/"+testbed.Key+"/rotate")
	began := time.Now()
	c.Await(10*time.Second, "all three to report the same new key_id", func(ctx context.Context) error {
		ids := make(map[string]int)
		for _, n := range c.Nodes {
			status, err := n.Trousseau.KMS.Status(ctx)
			if err != nil {
				return err
			}
			ids[status.KeyID]++
			after = status.KeyID
		}
		if len(ids) != 1 || after == before {
			return fmt.Errorf("they report %v", ids)
		}
		return nil
	})
	c.Observe("after a rotation all three report %s within %s", after, time.Since(began).Round(10*time.Millisecond))
	crossings.awaitMore(some)

	for _, n := range c.Nodes {
		name := "written-by-" + n.APIServer.Name
		c.Await(90*time.Second, n.APIServer.Name+" to write under the new key_id", func(ctx context.Context) error {
			// The request makes it call Trousseau.
			if _, err := n.APIServer.Page(ctx, "/readyz/kms-providers"); err != nil {
				return err
			}
			return writesUnder(ctx, c.Etcd, n.APIServer, name, after)
		})
		c.Observe("%s writes under it after %s", n.APIServer.Name, time.Since(began).Round(100*time.Millisecond))
		crossings.awaitMore(some)
	}
	return after
}

func mustAnnounce(t *testing.T, n *testbed.Node, keyID string) {
	t.Helper()
	if got := n.Trousseau.KeyID(); got != keyID {
		t.Errorf("%s reports key_id %q, want %q", n.Trousseau.Name, got, keyID)
	}
}

func crossingName(serial int) string { return fmt.Sprintf("crossing-%06d", serial) }

// startCrossings writes Secrets through the API servers in turn, and reads each
// through all of them concurrently.
func startCrossings(t *testing.T, c *testbed.Cluster) *calls {
	t.Helper()
	return startCalls(t, c.Bed, 2, 50*time.Millisecond, userTimeout, func(ctx context.Context, serial int) error {
		value := make([]byte, 32)
		rand.Read(value)
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: crossingName(serial)}, Data: map[string][]byte{"value": value}}
		writer := c.Nodes[serial%len(c.Nodes)].APIServer
		if _, err := writer.Client.CoreV1().Secrets(metav1.NamespaceDefault).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("writing through %s: %w", writer.Name, err)
		}
		for _, n := range c.Nodes {
			got, err := n.APIServer.Client.CoreV1().Secrets(metav1.NamespaceDefault).Get(ctx, secret.Name, metav1.GetOptions{})
			if err == nil && !bytes.Equal(got.Data["value"], value) {
				err = fmt.Errorf("%x differs from the written value", got.Data["value"])
			}
			if err != nil {
				return fmt.Errorf("reading through %s a Secret written by %s: %w", n.APIServer.Name, writer.Name, err)
			}
		}
		return nil
	})
}

// writesUnder returns nil if an API server writes under this key_id.
func writesUnder(ctx context.Context, etcd *testbed.Etcd, api *testbed.APIServer, name, keyID string) error {
	secrets := api.Client.CoreV1().Secrets(metav1.NamespaceDefault)
	if err := secrets.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"value": "x"}}
	if _, err := secrets.Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return err
	}
	object, err := testbed.Decode(etcd.Stored(metav1.NamespaceDefault, name))
	if err != nil {
		return err
	}
	if object.GetKeyID() != keyID {
		return fmt.Errorf("%s writes under key_id %s, want %s", api.Name, object.GetKeyID(), keyID)
	}
	return nil
}

// lateWrites counts the crossings written under a key_id after the first one written
// under the next key_id.
func lateWrites(t *testing.T, c *testbed.Cluster, announced []string) (late int) {
	t.Helper()
	prefix := "/registry/secrets/" + metav1.NamespaceDefault + "/"
	stored := c.Etcd.List(prefix + "crossing-")
	newest := 0
	for _, key := range slices.Sorted(maps.Keys(stored)) {
		object, err := testbed.Decode(stored[key])
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		at := slices.Index(announced, object.GetKeyID())
		if at < 0 {
			t.Fatalf("%s is under key_id %s, which no Status has reported", key, object.GetKeyID())
		}
		if at < newest {
			late++
		}
		newest = max(newest, at)
	}
	return late
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/uuid"
	kmsservice "k8s.io/kms/pkg/service"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// boundSeeds lets one trousseau bind seeds to associated data, and checks which
// others can decrypt them.
func boundSeeds(t *testing.T, c *testbed.Cluster) {
	t.Helper()
	const mark = "associated-data.trousseau.io"
	token := "token: " + c.Vault.NewToken().ID
	bound, unbound, elsewhere := newLogin(t, c, "bound"), newLogin(t, c, "unbound"), newLogin(t, c, "bound elsewhere")
	bound.configure(token, "associatedData: cluster-east")
	unbound.configure(token)
	elsewhere.configure(token, "associatedData: cluster-west")
	for _, l := range []*login{bound, unbound, elsewhere} {
		l.trousseau.Start()
	}
	for _, l := range []*login{bound, unbound, elsewhere} {
		l.trousseau.AwaitReady()
	}

	before, asked := sealedSeed(t, unbound), sealedSeed(t, bound)
	if _, marked := asked.Annotations[mark]; !marked || len(before.Annotations) > 0 {
		t.Fatalf("annotations %v with associated data, %v without; want %s with it", asked.Annotations, before.Annotations, mark)
	}
	unmarked := &kmsservice.DecryptRequest{Ciphertext: asked.Ciphertext, KeyID: asked.KeyID}

	for _, tt := range []struct {
		name   string
		by     *login
		asked  *kmsservice.DecryptRequest
		reason string // "" for success
	}{
		{"unchanged", bound, asked, ""},
		{"sealed before associated data was set", bound, before, ""},
		{"decrypted without associated data", unbound, asked, "associatedData is not set"},
		{"decrypted with other associated data", elsewhere, asked, "the ciphertext was not made by this key"},
		{"with the mark removed", bound, unmarked, "the ciphertext was not made by this key"},
		{"with the mark removed, decrypted without associated data", unbound, unmarked, "the ciphertext was not made by this key"},
	} {
		from := len(tt.by.trousseau.Log())
		_, err := tt.by.trousseau.KMS.Decrypt(t.Context(), string(uuid.NewUUID()), tt.asked)
		if tt.reason == "" {
			if err != nil {
				t.Errorf("seed %s: %v", tt.name, err)
			}
			continue
		}
		if code := status.Code(err); code != codes.InvalidArgument {
			t.Errorf("seed %s: %v, want it refused (InvalidArgument)", tt.name, err)
		}
		c.Await(10*time.Second, "the reason in the log", tt.by.trousseau.Logged(from, tt.reason))
	}
	for _, l := range []*login{bound, unbound, elsewhere} {
		l.trousseau.Stop()
	}
	c.Observe("associatedData: bound seeds are marked and decrypted; refused without it, with other data, and with the mark removed")
}

// sealedSeed returns the Decrypt request that kube-apiserver would send for a Secret
// that it has just written.
func sealedSeed(t *testing.T, l *login) *kmsservice.DecryptRequest {
	t.Helper()
	object, err := l.trousseau.SealSecrets("sealed-", 1)[0].Object()
	if err != nil {
		t.Fatal(err)
	}
	return &kmsservice.DecryptRequest{
		Ciphertext: object.GetEncryptedDEKSource(), KeyID: object.GetKeyID(), Annotations: object.GetAnnotations(),
	}
}

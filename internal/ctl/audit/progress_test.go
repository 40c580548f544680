// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/storedtest"
)

func TestProgress(t *testing.T) {
	bare := func(provider, id string, version int) []byte {
		return storedtest.KMSv2(provider, seed.Wrapped{KeyID: id, Ciphertext: fmt.Appendf(nil, "vault:v%d:x", version)})
	}
	const v2 = "kms v2 trousseau, transit/kms/v2@1700000002"
	tests := map[string]struct {
		values [][]byte // in the order in which they were written
		to     string
		want   []string
	}{
		"one way":        {values: [][]byte{trousseau(2, "x"), trousseau(2, "y")}},
		"only plaintext": {values: [][]byte{storedtest.Protobuf(), storedtest.JSON()}},
		"only malformed": {values: [][]byte{[]byte("k8s:enc:kms:v2:trousseau:x"), trousseau(2, "x")}},
		"from a local key": {
			values: [][]byte{storedtest.AESCBC("key1"), storedtest.AESCBC("key1"), trousseau(2, "x")}, to: v2,
			want: []string{"2 of 3 secrets still under aescbc key1"},
		},
		"to a local key, the last of few": {
			values: [][]byte{trousseau(2, "x"), trousseau(2, "y"), storedtest.Secretbox("key2")}, to: "secretbox key2",
			want: []string{"2 of 3 secrets still under " + v2},
		},
		"out of encryption": {
			values: [][]byte{storedtest.AESGCM("key1"), storedtest.Protobuf()}, to: "no key, in the clear",
			want: []string{"1 of 2 secrets still under aesgcm key1"},
		},
		"from plaintext": {
			values: [][]byte{storedtest.Protobuf(), storedtest.JSON(), trousseau(2, "x")}, to: v2,
			want: []string{"2 of 3 secrets still under no key, in the clear"},
		},
		"a rotation, and malformed values": {
			values: [][]byte{trousseau(1, "x"), trousseau(1, "y"), trousseau(2, "x"), []byte("k8s:enc:kms:v2:trousseau:x")}, to: v2,
			want: []string{"2 of 4 secrets still under kms v2 trousseau, transit/kms/v1@1700000001"},
		},
		"several, the most first": {
			values: [][]byte{storedtest.KMSv1("old", []byte("vault:v3:x")), storedtest.KMSv1("old", []byte("opaque")), bare("other", "3", 3), bare("other", "3", 3), trousseau(2, "x")}, to: v2,
			want: []string{"2 of 5 secrets still under kms v2 other, 3 (wrapped by version 3)", "1 of 5 secrets still under kms v1 old (wrapped by version 3)", "1 of 5 secrets still under kms v1 old"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := audit.New(audit.Options{Prefixes: []string{"/registry/"}})
			for i, value := range tt.values {
				_ = a.Add(etcd.Object{Key: fmt.Appendf(nil, "/registry/secrets/a/%d", i), Value: value, Revision: int64(i + 1)})
			}
			r := a.Report(live).Resources[0]
			if got := r.StillUnder(); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if r.Progress != nil && r.Progress.To != tt.to {
				t.Errorf("written last under %q, want %q", r.Progress.To, tt.to)
			}
			left := 0
			if r.Progress != nil {
				for _, l := range r.Progress.Left {
					left += l.Objects
				}
			}
			if got := r.Progress.Objects(); got != left {
				t.Errorf("%d objects left, want %d", got, left)
			}
		})
	}
}

// Only resources that should be encrypted have progress, and none outside of the prefixes.
func TestProgressOnlyOfWhatShouldBeEncrypted(t *testing.T) {
	a := audit.New(audit.Options{Prefixes: []string{"/registry/"}})
	for i, value := range [][]byte{storedtest.Protobuf(), storedtest.JSON()} {
		_ = a.Add(etcd.Object{Key: fmt.Appendf(nil, "/registry/pods/a/%d", i), Value: value, Revision: int64(i)})
	}
	for i, value := range [][]byte{trousseau(1, "x"), trousseau(2, "x")} {
		_ = a.AddOutside(etcd.Object{Key: fmt.Appendf(nil, "/kubernetes.io/secrets/a/%d", i), Value: value, Revision: int64(i)})
	}
	r := a.Report(live)
	for _, res := range append(r.Resources, r.Outside...) {
		if res.Progress != nil {
			t.Errorf("%s: %s", res.Name, strings.Join(res.StillUnder(), ", "))
		}
	}
}

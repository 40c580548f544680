// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

func TestKeysOfOtherKinds(t *testing.T) {
	s := vaulttest.Start(t)
	root := newCaller(t, s, s.RootToken())
	for name, body := range map[string]fields{
		"type": {"type": "rsa-2048"}, "derived": {"derived": true},
		"exportable": {"exportable": true}, "allow_plaintext_backup": {"allow_plaintext_backup": true},
	} {
		root.want(200, "POST", "transit/keys/"+name, body)
		if got := root.want(200, "GET", "transit/keys/"+name, nil).Data[name]; got != body[name] {
			t.Errorf("%s: got %v", name, got)
		}
	}
	root.want(400, "POST", "transit/keys/x", fields{"type": "none"}, "unknown key type none")
	root.want(400, "POST", "transit/encrypt/type", fields{"plaintext": ""}, "keys of type rsa-2048 are of no use in this fake")
	root.want(400, "POST", "transit/encrypt/derived", fields{"plaintext": ""},
		"missing 'context' for key derivation; the key was created using a derived key, which means additional,"+
			" per-request information must be included in order to perform operations with the key")

	root.want(200, "POST", "transit/keys/kek", nil)
	root.want(200, "POST", "transit/keys/kek/config", fields{"exportable": true})
	if a := root.want(200, "POST", "transit/keys/kek/config", fields{"exportable": false}); a.Data["exportable"] != true {
		t.Error("a key that was exportable is no more")
	}
}

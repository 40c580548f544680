// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
)

// StoredPrefix begins every encrypted Secret in etcd. Its last part is the
// provider's name in the documented EncryptionConfiguration.
const StoredPrefix = "k8s:enc:kms:v2:trousseau:"

// Stored returns a Secret's value as stored in etcd.
func (e *Etcd) Stored(namespace, name string) []byte {
	e.bed.t.Helper()
	key := "/registry/secrets/" + namespace + "/" + name
	value, ok := e.List(key)[key]
	if !ok {
		e.bed.t.Fatalf("etcd has nothing under %s", key)
	}
	return value
}

// Decode decodes a value stored in etcd without decrypting it.
func Decode(stored []byte) (*kmstypes.EncryptedObject, error) {
	rest, found := bytes.CutPrefix(stored, []byte(StoredPrefix))
	if !found {
		return nil, fmt.Errorf("the stored value does not begin with %s, but with %.40q", StoredPrefix, stored)
	}
	object := new(kmstypes.EncryptedObject)
	if err := proto.Unmarshal(rest, object); err != nil {
		return nil, fmt.Errorf("decoding what follows %s: %w", StoredPrefix, err)
	}
	return object, nil
}

// KeyIDs counts the Secrets in etcd by key_id. Unencrypted Secrets are counted under
// "".
func (e *Etcd) KeyIDs() map[string]int {
	e.bed.t.Helper()
	counts := make(map[string]int)
	for key, stored := range e.List("/registry/secrets/") {
		if !bytes.HasPrefix(stored, []byte("k8s:enc:")) {
			counts[""]++
			continue
		}
		object, err := Decode(stored)
		if err != nil {
			e.bed.t.Fatalf("%s: %v", key, err)
		}
		counts[object.GetKeyID()]++
	}
	return counts
}

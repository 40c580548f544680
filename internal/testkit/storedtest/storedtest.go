// SPDX-License-Identifier: Apache-2.0

// Package storedtest creates values in kube-apiserver's storage format, for tests.
// They cannot be decrypted: the ciphertext is random bytes.
package storedtest

import (
	"crypto/rand"
	"encoding/binary"

	"google.golang.org/protobuf/proto"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"github.com/trousseau-io/trousseau/internal/seed"
)

// Secret is part of every plaintext value. It must not appear in output about
// values.
const Secret = "correct-horse-battery-staple"

// Protobuf is an unencrypted object in the format of most resources.
func Protobuf() []byte { return []byte("k8s\x00\n\x0c\n\x02v1\x12\x06Secret\x12" + Secret) }

// JSON is an unencrypted object in the format of custom resources.
func JSON() []byte { return []byte(`{"kind":"Widget","spec":"` + Secret + `"}`) }

// CBOR is an unencrypted object in an optional format of custom resources.
func CBOR() []byte { return []byte("\xd9\xd9\xf7\xa1\x64kind\x78\x1c" + Secret) }

// AESCBC is encrypted with the local key of this name.
func AESCBC(key string) []byte { return local("aescbc", key, 16+64) }

// AESGCM is encrypted with the local key of this name.
func AESGCM(key string) []byte { return local("aesgcm", key, 12+64+16) }

// Secretbox is encrypted with the local key of this name.
func Secretbox(key string) []byte { return local("secretbox", key, 24+16+64) }

// KMSv1 is encrypted by the plugin of this name, under a DEK that it has wrapped.
func KMSv1(provider string, dek []byte) []byte {
	head := binary.BigEndian.AppendUint16([]byte("k8s:enc:kms:v1:"+provider+":"), uint16(len(dek)))
	return append(append(head, dek...), random(80)...)
}

// KMSv2 is encrypted by the plugin of this name, under a seed.
func KMSv2(provider string, w seed.Wrapped) []byte {
	return KMSv2Object(provider, &kmstypes.EncryptedObject{
		EncryptedData:          random(32 + 12 + 200 + 16),
		KeyID:                  w.KeyID,
		EncryptedDEKSource:     w.Ciphertext,
		Annotations:            w.Annotations,
		EncryptedDEKSourceType: kmstypes.EncryptedDEKSourceType_HKDF_SHA256_XNONCE_AES_GCM_SEED,
	})
}

// KMSv2Object is a value with this EncryptedObject.
func KMSv2Object(provider string, object *kmstypes.EncryptedObject) []byte {
	text, err := proto.Marshal(object)
	if err != nil {
		panic(err) // a key_id that is not valid UTF-8
	}
	return append([]byte("k8s:enc:kms:v2:"+provider+":"), text...)
}

func local(kind, key string, size int) []byte {
	return append([]byte("k8s:enc:"+kind+":v1:"+key+":"), random(size)...)
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

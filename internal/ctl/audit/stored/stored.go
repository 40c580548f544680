// SPDX-License-Identifier: Apache-2.0

// Package stored tells how kube-apiserver has stored an object: in the clear, or
// encrypted, by which provider and with which key. It decrypts nothing.
//
// The forms are those of kube-apiserver's encryption providers
// (pkg/server/options/encryptionconfig/config.go of k8s.io/apiserver): a prefix
// that names the kind of provider and one of its keys, then the provider's output.
// An unencrypted value begins with the mark of its encoding.
package stored

import (
	"bytes"
	"errors"
	"fmt"

	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
)

// Form is how a value is stored. The texts are part of the audit's output.
type Form string

// The forms.
const (
	Protobuf  Form = "protobuf" // in the clear
	JSON      Form = "json"     // in the clear, as custom resources are
	CBOR      Form = "cbor"     // in the clear
	Other     Form = "other"    // in the clear, in no known encoding
	AESCBC    Form = "aescbc"
	AESGCM    Form = "aesgcm"
	Secretbox Form = "secretbox"
	KMSv1     Form = "kms v1"
	KMSv2     Form = "kms v2"
	// Malformed is an encrypted value that kube-apiserver could not read with any
	// key.
	Malformed Form = "malformed"
)

// Clear reports whether anyone who can read etcd can read values of this form.
func (f Form) Clear() bool {
	switch f {
	case Protobuf, JSON, CBOR, Other:
		return true
	}
	return false
}

// Value describes a stored value.
type Value struct {
	Form Form
	// Name is the key's name for AESCBC, AESGCM and Secretbox, and the
	// provider's for KMSv1 and KMSv2.
	Name string
	// Object is the stored object of KMSv2; nil for the other forms.
	Object *kmstypes.EncryptedObject
	// Wrapped is what the plugin unwraps: the DEK of KMSv1, or the seed or DEK of
	// KMSv2.
	Wrapped []byte
	// Problem says why a value is Malformed. It quotes no part of the value.
	Problem string
}

// IsClear is Parse(value).Form.Clear(), at less cost.
func IsClear(value []byte) bool { return !bytes.HasPrefix(value, encrypted) }

// Parse describes value. The result does not share memory with it.
func Parse(value []byte) Value {
	rest, found := bytes.CutPrefix(value, encrypted)
	if !found {
		return Value{Form: encoding(value)}
	}
	v, err := parse(rest)
	if err != nil {
		return Value{Form: Malformed, Name: v.Name, Problem: err.Error()}
	}
	return v
}

// encrypted is the prefix of every encryption provider except identity, which
// changes nothing and refuses to read values with this prefix.
var encrypted = []byte("k8s:enc:")

// forms are the encryption providers, by what follows after k8s:enc:.
var forms = []struct {
	prefix string
	form   Form
	parse  func(v *Value, data []byte) error
}{
	{"kms:v2:", KMSv2, parseKMSv2},
	{"aescbc:v1:", AESCBC, checkCBC},
	{"aesgcm:v1:", AESGCM, checkGCM},
	{"secretbox:v1:", Secretbox, checkSecretbox},
	{"kms:v1:", KMSv1, parseKMSv1},
}

func parse(rest []byte) (Value, error) {
	for _, f := range forms {
		named, found := bytes.CutPrefix(rest, []byte(f.prefix))
		if !found {
			continue
		}
		name, data, found := bytes.Cut(named, []byte(":"))
		if !found || len(name) == 0 {
			return Value{}, fmt.Errorf("no name follows k8s:enc:%s", f.prefix)
		}
		v := Value{Form: f.form, Name: string(name)}
		err := f.parse(&v, data)
		return v, err
	}
	return Value{}, errors.New("the provider after k8s:enc: is unknown")
}

// encoding returns the encoding of an unencrypted API object.
func encoding(value []byte) Form {
	switch {
	// "k8s\x00" (apimachinery's pkg/runtime/serializer/protobuf).
	case bytes.HasPrefix(value, []byte("k8s\x00")):
		return Protobuf
	case bytes.HasPrefix(bytes.TrimLeft(value[:min(len(value), 64)], " \t\r\n"), []byte("{")):
		return JSON
	// The tag of self-described CBOR (RFC 8949, section 3.4.6).
	case bytes.HasPrefix(value, []byte{0xd9, 0xd9, 0xf7}):
		return CBOR
	}
	return Other
}

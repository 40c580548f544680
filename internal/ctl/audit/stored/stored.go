// SPDX-License-Identifier: Apache-2.0

// Package stored tells in what form kube-apiserver has stored an object: in the
// clear, or encrypted, by what, and with which key. It decrypts nothing.
//
// The forms are those of kube-apiserver's encryption providers
// (pkg/server/options/encryptionconfig/config.go of k8s.io/apiserver): a prefix
// that names the kind of provider and one of its keys, then what the provider
// made. What no provider has touched begins as its encoding does.
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
	// Malformed says that it is encrypted, but kube-apiserver could not read it
	// with any key.
	Malformed Form = "malformed"
)

// Clear reports whether a value of this form can be read by who reads etcd.
func (f Form) Clear() bool {
	switch f {
	case Protobuf, JSON, CBOR, Other:
		return true
	}
	return false
}

// Value is what can be told of a stored value.
type Value struct {
	Form Form
	// Name is the key's name for AESCBC, AESGCM and Secretbox, and the
	// provider's for KMSv1 and KMSv2.
	Name string
	// Object is what KMSv2 stores; nil for the others.
	Object *kmstypes.EncryptedObject
	// Problem is why a value is Malformed. It quotes nothing of the value.
	Problem string
}

// IsClear reports whether Parse would call a value's form clear, at less cost.
func IsClear(value []byte) bool { return !bytes.HasPrefix(value, encrypted) }

// Parse tells what value is. The result does not share memory with it.
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

// encrypted begins whatever an encryption provider made, but for the identity
// provider, which leaves all as it is and refuses to read what begins so.
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
	{"kms:v1:", KMSv1, checkKMSv1},
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
	return Value{}, errors.New("what follows k8s:enc: is no provider that is known")
}

// encoding tells the encodings of API objects apart.
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

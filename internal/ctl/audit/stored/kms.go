// SPDX-License-Identifier: Apache-2.0

package stored

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"github.com/trousseau-io/trousseau/internal/seed"
)

// parseKMSv1: the length of the wrapped DEK in two bytes, the DEK, then the data
// (pkg/storage/value/encrypt/envelope/envelope.go, TransformFromStorage).
func parseKMSv1(v *Value, data []byte) error {
	if len(data) < 2 {
		return errShort
	}
	end := 2 + int(binary.BigEndian.Uint16(data))
	if len(data) <= end {
		return errShort
	}
	v.Wrapped = bytes.Clone(seed.OfV1(data[2:end]).Ciphertext)
	return nil
}

func parseKMSv2(v *Value, data []byte) error {
	object := new(kmstypes.EncryptedObject)
	if err := proto.Unmarshal(data, object); err != nil {
		return errors.New("the data after the provider's name is not an EncryptedObject")
	}
	if err := validate(object); err != nil {
		return err
	}
	v.Object, v.Wrapped = object, object.EncryptedDEKSource
	return nil
}

// Limits in bytes, from pkg/storage/value/encrypt/envelope/kmsv2/envelope.go.
const (
	maxKeyID       = 1 << 10
	maxDEKSource   = 1 << 10
	maxAnnotations = 32 << 10
)

// validate refuses what kube-apiserver refuses to read (ValidateEncryptedObject in
// the same file, which a test compares it with), and data that is too short for the
// cipher of its type.
func validate(o *kmstypes.EncryptedObject) error {
	shortest := 12 + 16 // AES-GCM's nonce and tag
	switch o.EncryptedDEKSourceType {
	case kmstypes.EncryptedDEKSourceType_AES_GCM_KEY:
	case kmstypes.EncryptedDEKSourceType_HKDF_SHA256_XNONCE_AES_GCM_SEED:
		shortest += 32 // the info of the key derivation
	default:
		return fmt.Errorf("its encryptedDEKSourceType %d is unknown", o.EncryptedDEKSourceType)
	}
	switch {
	case len(o.EncryptedData) < shortest:
		return errShort
	case len(o.EncryptedDEKSource) == 0:
		return errors.New("it has no encryptedDEKSource")
	case len(o.EncryptedDEKSource) > maxDEKSource:
		return fmt.Errorf("its encryptedDEKSource is longer than %d bytes", maxDEKSource)
	case o.KeyID == "":
		return errors.New("it has no key_id")
	case len(o.KeyID) > maxKeyID:
		return fmt.Errorf("its key_id is longer than %d bytes", maxKeyID)
	}
	size := 0
	for name, value := range o.Annotations {
		if len(validation.IsFullyQualifiedDomainName(nil, name)) > 0 {
			return errors.New("the name of an annotation is not a fully qualified domain name")
		}
		size += len(name) + len(value)
	}
	if size > maxAnnotations {
		return fmt.Errorf("its annotations are longer than %d bytes", maxAnnotations)
	}
	return nil
}

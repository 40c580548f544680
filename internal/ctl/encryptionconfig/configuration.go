// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"fmt"
	"strings"
	"time"
)

// Configuration is an EncryptionConfiguration without its keys.
type Configuration struct {
	Entries []Entry
}

// Entry is one item of resources: what it is for, and the providers. The first
// provider writes, and all read: which one is told by the value's prefix.
type Entry struct {
	Resources []string
	Providers []Provider
}

// Provider is one item of providers: a kms, or one of the other kinds with the
// names of its keys.
type Provider struct {
	// Kind is kms, aesgcm, aescbc, secretbox or identity.
	Kind string
	// Keys are the names of the keys; none for kms and identity.
	Keys []string
	// KMS is set if Kind is kms.
	KMS *KMS
}

// KMS is a plugin. What the file leaves out has its default.
type KMS struct {
	APIVersion string
	Name       string
	Endpoint   string
	Timeout    time.Duration
	// cacheSize is nil if the file has none.
	cacheSize *int32
}

// String says which one it is.
func (p Provider) String() string {
	switch {
	case p.KMS != nil:
		return fmt.Sprintf("kms %s %q", p.KMS.APIVersion, p.KMS.Name)
	case p.Kind == kindIdentity:
		return "identity (plaintext)"
	}
	quoted := make([]string, len(p.Keys))
	for i, k := range p.Keys {
		quoted[i] = fmt.Sprintf("%q", k)
	}
	return p.Kind + " " + strings.Join(quoted, ", ")
}

const (
	kindKMS      = "kms"
	kindIdentity = "identity"
)

// Parse reads a configuration and checks it as kube-apiserver does. The error is
// an [*InvalidError]; neither it nor the result holds a key.
func Parse(text []byte) (Configuration, error) {
	d, err := parse(text)
	if err != nil {
		return Configuration{}, err
	}
	return d.config, nil
}

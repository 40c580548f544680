// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/kms/pkg/util"

	"github.com/trousseau-io/trousseau/internal/endpoint"
)

// Configuration is an EncryptionConfiguration without its keys.
type Configuration struct {
	Entries []Entry
}

// Entry is one item of the list resources. Its first provider writes, and all of them
// read: the prefix of a value names the provider.
type Entry struct {
	Resources []string
	Providers []Provider
}

// Provider is one item of the list providers.
type Provider struct {
	// Kind is kms, aesgcm, aescbc, secretbox or identity.
	Kind string
	// Keys are the names of the keys; none for kms and identity.
	Keys []string
	// KMS is set if Kind is kms.
	KMS *KMS
}

// KMS is a plugin. Fields that are not in the file have their defaults.
type KMS struct {
	APIVersion string
	Name       string
	Endpoint   string
	Timeout    time.Duration
}

// ListensAt reports whether kube-apiserver finds the plugin at e.
func (k *KMS) ListensAt(e endpoint.Endpoint) bool {
	address, err := util.ParseEndpoint(k.Endpoint)
	return err == nil && (address == e.Address() || filepath.Clean(address) == e.Address())
}

// String names the provider.
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

const kindIdentity = "identity"

// Parse reads a configuration and checks it as kube-apiserver does. The error is
// an [*InvalidError]; neither it nor the result holds a key.
func Parse(text []byte) (Configuration, error) {
	d, err := parse(text)
	if err != nil {
		return Configuration{}, err
	}
	return withoutKeys(d.loaded), nil
}

func withoutKeys(loaded *apiserver.EncryptionConfiguration) (c Configuration) {
	for _, r := range loaded.Resources {
		e := Entry{Resources: r.Resources}
		for _, p := range r.Providers {
			switch {
			case p.KMS != nil:
				k := KMS{p.KMS.APIVersion, p.KMS.Name, p.KMS.Endpoint, p.KMS.Timeout.Duration}
				e.Providers = append(e.Providers, Provider{Kind: "kms", KMS: &k})
			case p.AESGCM != nil:
				e.Providers = append(e.Providers, keyed("aesgcm", p.AESGCM.Keys))
			case p.AESCBC != nil:
				e.Providers = append(e.Providers, keyed("aescbc", p.AESCBC.Keys))
			case p.Secretbox != nil:
				e.Providers = append(e.Providers, keyed("secretbox", p.Secretbox.Keys))
			default:
				e.Providers = append(e.Providers, Provider{Kind: kindIdentity})
			}
		}
		c.Entries = append(c.Entries, e)
	}
	return c
}

func keyed(kind string, keys []apiserver.Key) Provider {
	p := Provider{Kind: kind}
	for _, k := range keys {
		p.Keys = append(p.Keys, k.Name)
	}
	return p
}

// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"crypto/sha256"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"
	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"sigs.k8s.io/yaml"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
)

// encryption is an EncryptionConfiguration, as it is on the hosts of the API servers.
type encryption struct {
	hash string
	apiserverv1.EncryptionConfiguration
}

// newEncryption reads a file. It checks nothing, because an API server has loaded exactly
// this text; see loadedBy.
func newEncryption(text []byte) (*encryption, error) {
	e := &encryption{hash: fmt.Sprintf("sha256:%x", sha256.Sum256(text))}
	// The error could quote a key.
	if yaml.Unmarshal(text, &e.EncryptionConfiguration) != nil || len(e.Resources) == 0 {
		return nil, fmt.Errorf("not an EncryptionConfiguration")
	}
	return e, nil
}

// loadedBy returns an error unless an API server has loaded this text.
func (e *encryption) loadedBy(s *apiserver.Server, ids apiserver.KeyIDs) error {
	switch ids.Configuration {
	case e.hash:
		return nil
	case "":
		return permanent{fmt.Errorf("the API server %s does not say which EncryptionConfiguration it has loaded: omit --encryption-config", s.URL())}
	}
	return fmt.Errorf("the API server %s has loaded another EncryptionConfiguration than --encryption-config (%.19s…, not %.19s…): give the file that every API server has loaded", s.URL(), ids.Configuration, e.hash)
}

// writer returns the name of the KMS v2 provider that writes a resource: the first one of
// the item for it (transformerFromOverrides in
// apiserver/pkg/server/options/encryptionconfig/config.go).
func (e *encryption) writer(gr schema.GroupResource) (string, error) {
	for _, pattern := range []schema.GroupResource{gr, {Group: gr.Group, Resource: "*"}, {Group: "*", Resource: "*"}} {
		for _, item := range e.Resources {
			for _, name := range item.Resources {
				if schema.ParseGroupResource(name) != pattern {
					continue
				}
				if len(item.Providers) > 0 && item.Providers[0].KMS != nil && item.Providers[0].KMS.APIVersion == "v2" {
					return item.Providers[0].KMS.Name, nil
				}
				return "", fmt.Errorf("%s: the first provider in EncryptionConfiguration is not KMS v2: make Trousseau the first", gr)
			}
		}
	}
	return "", fmt.Errorf("%s is not in EncryptionConfiguration: add it", gr)
}

// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"fmt"
	"regexp"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"

	"github.com/trousseau-io/trousseau/internal/endpoint"
)

// check finds mistakes in the options. It is stricter than kube-apiserver, because
// the name cannot be changed later.
func (o Options) check() error {
	bad := func(option, format string, args ...any) error {
		return &OptionError{Option: option, Reason: fmt.Sprintf(format, args...)}
	}
	if len(o.Resources) == 0 {
		return bad("resources", "is empty; name at least one, such as secrets")
	}
	for _, r := range o.Resources {
		if r == "" {
			return bad("resources", "has an empty name; separate names with commas, such as secrets,configmaps")
		}
	}
	alone := &apiserver.EncryptionConfiguration{Resources: []apiserver.ResourceConfiguration{
		{Resources: o.Resources, Providers: []apiserver.ProviderConfiguration{{Identity: &apiserver.IdentityConfiguration{}}}},
	}}
	for _, e := range validation.ValidateEncryptionConfiguration(alone, false) {
		return bad("resources", "%s", said(e))
	}
	for _, r := range o.Resources {
		if problem := withoutGroup(r); problem != "" {
			return bad("resources", "%s", problem)
		}
	}
	if !nameForm.MatchString(o.Name) {
		return bad("name", "%q: want letters, digits, dots, dashes and underscores, such as trousseau; it becomes part of every value in etcd", o.Name)
	}
	if o.Endpoint == (endpoint.Endpoint{}) {
		return bad("endpoint", "is missing")
	}
	if o.Timeout < 0 {
		return bad("timeout", "%s is not a positive duration such as 3s", o.Timeout)
	}
	if o.Phase != Read && o.Phase != Write {
		return bad("phase", "%q: want read, for every API server first, and then write", o.Phase)
	}
	return nil
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
)

// validate follows ValidateEncryptionConfiguration in
// k8s.io/apiserver/pkg/apis/apiserver/validation/validation_encryption.go, as
// called without automatic reload, and then what LoadEncryptionConfig in
// pkg/server/options/encryptionconfig refuses in addition. We do not import these
// packages, because they depend on CEL and most of a server. A test in test/apiserver
// compares the results.
func (r *reader) validate(c Configuration) {
	at := path{"resources"}
	if len(c.Entries) == 0 {
		r.refuse(at, "is empty; it needs an item with resources and providers")
		return
	}
	names := map[string]bool{}
	for i, e := range c.Entries {
		at := at.index(i)
		if len(e.Resources) == 0 {
			r.refuse(at.field("resources"), "is empty; name at least one resource, such as secrets")
		}
		for _, p := range resourceProblems(e.Resources) {
			where := at.field("resources")
			if p.index >= 0 {
				where = where.index(p.index)
			}
			r.refuse(where, "%s", p.text)
		}
		if len(e.Providers) == 0 {
			r.refuse(at.field("providers"), "is empty; it needs at least one provider")
		}
		for j, p := range e.Providers {
			at := at.field("providers").index(j).field(p.Kind)
			switch p.Kind {
			case kindKMS:
				r.validateKMS(p.KMS, at, names)
				names[p.KMS.Name] = true
			case "aesgcm", "aescbc":
				r.validateKeys(p, at.field("keys"), 16, 24, 32)
			case "secretbox":
				r.validateKeys(p, at.field("keys"), 32)
			}
		}
	}
	r.validateMasks(c)
}

// validateKMS is validateKMSConfiguration.
func (r *reader) validateKMS(k *KMS, at path, names map[string]bool) {
	switch {
	case k.Name == "":
		r.refuse(at.field("name"), "is missing or empty")
	case k.APIVersion != "v1" && strings.Contains(k.Name, ":"):
		r.refuse(at.field("name"), `%q has a ":", which kms v2 does not allow`, k.Name)
	case k.APIVersion != "v1" && names[k.Name]:
		r.refuse(at.field("name"), "%q is the name of an earlier kms provider; a kms v2 name must be unique in the file. Several names may have the same endpoint", k.Name)
	}
	if k.Timeout <= 0 {
		r.refuse(at.field("timeout"), "is not positive; want a duration such as 3s")
	}
	if k.Endpoint == "" {
		r.refuse(at.field("endpoint"), "is missing or empty; want unix:// and an absolute path")
	} else if u, err := url.Parse(k.Endpoint); err != nil || u.Scheme != "unix" {
		r.refuse(at.field("endpoint"), "%q: want unix:// and an absolute path, such as unix:///run/trousseau/kms.sock", k.Endpoint)
	}
	switch {
	case k.APIVersion != "v1" && k.cacheSize != nil:
		r.refuse(at.field("cachesize"), "is for kms v1 only; remove the line")
	case k.cacheSize != nil && *k.cacheSize == 0:
		r.refuse(at.field("cachesize"), "is 0; want a positive number, or a negative one to disable the cache")
	}
	if k.APIVersion != "v1" && k.APIVersion != "v2" {
		r.refuse(at.field("apiVersion"), "%q: want v2, or v1 for a plugin that supports only v1", k.APIVersion)
	}
}

// validateKeys is the function of that name. It never shows a secret.
func (r *reader) validateKeys(p Provider, at path, sizes ...int) {
	if len(p.Keys) == 0 {
		r.refuse(at, "is empty; it needs at least one key")
	}
	for i := range p.Keys {
		at := at.index(i)
		k := r.keys[at.String()]
		if k.name == "" {
			r.refuse(at.field("name"), "is missing or empty")
		}
		if k.secret == "" {
			r.refuse(at.field("secret"), "is missing or empty")
			continue
		}
		secret, err := base64.StdEncoding.DecodeString(k.secret)
		if err != nil {
			r.refuse(at.field("secret"), "is not base64")
		} else if !slices.Contains(sizes, len(secret)) {
			r.refuse(at.field("secret"), "is a key of %d bytes; want one of %v", len(secret), sizes)
		}
	}
}

// validateMasks finds resources that an earlier wildcard hides
// (getTransformerOverridesAndKMSPluginProbes in
// pkg/server/options/encryptionconfig/config.go).
func (r *reader) validateMasks(c Configuration) {
	seen := map[groupResource]bool{}
	for i, e := range c.Entries {
		for j, g := range parseResources(e.Resources) {
			for _, wildcard := range g.within() {
				if seen[wildcard] {
					r.refuse(path{"resources", i, "resources", j}, "%q has no effect after the earlier %q; move it to an item before that one, or remove it", g, wildcard)
					break
				}
			}
			seen[g] = true
		}
	}
}

// resourceProblem is a mistake in a list of resources; index is -1 for the list as a
// whole.
type resourceProblem struct {
	index int
	text  string
}

// resourceProblems is validateResourceOverlap and validateResourceNames.
func resourceProblems(names []string) (problems []resourceProblem) {
	all := parseResources(names)
	duplicate, overlap := false, false
	for i, a := range all {
		for j, b := range all {
			switch {
			case i == j:
			case a == b:
				duplicate = true
			case a == everything, a.group == b.group && a.resource == "*":
				overlap = true
			}
		}
	}
	if duplicate {
		problems = append(problems, resourceProblem{-1, "the same resource is listed twice; keep one"})
	}
	if overlap {
		problems = append(problems, resourceProblem{-1, "resources overlap, such as secrets and *. or anything and *.*; keep only the wildcard, or move the other resource to an item before it"})
	}
	for i, name := range names {
		if text := resourceName(name, all[i]); text != "" {
			problems = append(problems, resourceProblem{i, text})
		}
	}
	return problems
}

func resourceName(name string, g groupResource) string {
	switch {
	case name == "":
		// kube-apiserver accepts it, and it matches nothing.
		return ""
	case strings.ToLower(name) != name:
		return `"` + name + `" has capital letters; write ` + strings.ToLower(name)
	case name == "*":
		return `"*" is ambiguous; write *. for the core group or *.* for everything`
	case name == "apiserveripinfo", name == "serviceipallocations", name == "servicenodeportallocations":
		return `"` + name + `" is not an API resource and cannot be encrypted`
	case g.group == "events.k8s.io":
		return `"` + name + `" is stored in the core group; write events`
	case g.group == "extensions":
		return `"` + name + `": the group extensions no longer exists; write the resource's current group, such as deployments.apps`
	case g.group == "*" && g.resource != "*":
		return `"` + name + `": a resource needs a group; write its group, or *.* for everything`
	}
	return ""
}

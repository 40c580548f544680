// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"fmt"
	"slices"
	"strings"
)

// change is an edit of a configuration.
type change struct {
	kind  kind
	entry int // the place in resources
	from  int // of move: the place in providers
	to    int // of insert: the place in providers
}

type kind int

const (
	nothing kind = iota // nothing to do
	insert              // a provider into an entry
	move                // our provider to the front of its entry
	extend              // another entry at the end
)

// plan decides what to do. The error says why the edit would do harm.
func (c Configuration) plan(o Options) (change, error) {
	index, err := c.find(o.Resources)
	if err != nil {
		return change{}, err
	}
	entry, at, err := c.named(o)
	if err != nil {
		return change{}, err
	}
	if index == len(c.Entries) {
		if at >= 0 {
			return change{}, refuse("name-in-use", "%s is in resources[%d] already, for %s, and a kms v2 name must be unique in the file: give another --name for %s. The endpoint can be the same",
				c.Entries[entry].Providers[at], entry, strings.Join(c.Entries[entry].Resources, ", "), strings.Join(o.Resources, ", "))
		}
		return change{kind: extend, entry: index}, nil
	}
	providers := c.Entries[index].Providers
	if at >= 0 && entry != index {
		return change{}, refuse("name-in-use", "%s is in resources[%d] already, for %s, and a kms v2 name must be unique in the file: give another --name for %s in resources[%d]. The endpoint can be the same",
			c.Entries[entry].Providers[at], entry, strings.Join(c.Entries[entry].Resources, ", "), strings.Join(o.Resources, ", "), index)
	}
	if err := leaving(index, providers, at); err != nil {
		return change{}, err
	}
	switch {
	case at < 0:
		if err := renamed(index, providers, o); err != nil {
			return change{}, err
		}
		if o.Phase == Read {
			return change{kind: insert, entry: index, to: 1}, nil
		}
		return change{kind: insert, entry: index}, nil
	case at > 0 && o.Phase == Write:
		return change{kind: move, entry: index, from: at}, nil
	}
	// The first provider can also read: it is never moved back.
	return change{kind: nothing, entry: index}, nil
}

// find returns the entry that is for exactly these resources, or the number of
// entries if none is for any of them.
//
// An entry's providers are for all of its resources. To take one out, its providers
// would have to be repeated, which kms v2 does not allow. To add one, they would have
// to be able to read all of its objects in etcd.
func (c Configuration) find(resources []string) (int, error) {
	wanted := parseResources(resources)
	where := make([]int, len(wanted))
	for i, g := range wanted {
		where[i] = slices.IndexFunc(c.Entries, func(e Entry) bool { return slices.Contains(parseResources(e.Resources), g) })
		if where[i] >= 0 {
			continue
		}
		// As transformerFromOverrides in pkg/server/options/encryptionconfig does
		// it: an entry for the resource would replace the wildcard, and with it the
		// providers that can read its objects.
		for j, e := range c.Entries {
			for _, wildcard := range g.within() {
				if slices.Contains(parseResources(e.Resources), wildcard) {
					return 0, refuse("wildcard-covers", "%s is encrypted by resources[%d], as part of %q: a separate item could not decrypt what is in etcd. Give --resources %s",
						g, j, wildcard, flag(e.Resources))
				}
			}
		}
	}
	for i, index := range where {
		if index != where[0] {
			return 0, refuse("several-items", "%s is %s and %s is %s: use one run for each, with another --name for the second. The endpoint can be the same",
				wanted[0], place(where[0]), wanted[i], place(index))
		}
	}
	if where[0] < 0 {
		return len(c.Entries), nil
	}
	e := c.Entries[where[0]]
	for _, g := range parseResources(e.Resources) {
		if !slices.Contains(wanted, g) {
			return 0, refuse("more-resources", "resources[%d] is for %s as well, and its providers are for all of its resources: give --resources %s", where[0], g, flag(e.Resources))
		}
	}
	return where[0], nil
}

// named returns the place of the provider with that name; provider is -1 if there is
// none.
func (c Configuration) named(o Options) (entry, provider int, err error) {
	for i, e := range c.Entries {
		for j, p := range e.Providers {
			if p.KMS == nil || p.KMS.Name != o.Name {
				continue
			}
			where := fmt.Sprintf("resources[%d].providers[%d].kms", i, j)
			switch {
			case p.KMS.APIVersion != "v2":
				return 0, 0, refuse("name-of-kms-v1", "%s is %s: it must stay unchanged, to decrypt what it encrypted. Give another --name", where, p)
			case !p.KMS.ListensAt(o.Endpoint):
				return 0, 0, refuse("endpoint-differs", "%s is %s at %s, not at %s: give that --endpoint, or another --name for another plugin. If the endpoint of the plugin has changed, edit it in the file yourself",
					where, p, p.KMS.Endpoint, o.Endpoint)
			case o.Timeout != 0 && p.KMS.Timeout != o.Timeout:
				return 0, 0, refuse("timeout-differs", "%s is %s with a timeout of %s, not %s: edit it in the file yourself, or omit --timeout", where, p, p.KMS.Timeout, o.Timeout)
			}
			return i, j, nil
		}
	}
	return 0, -1, nil
}

// renamed refuses a second name for a plugin that is in the entry: the values in etcd
// have the first name in their prefix, k8s:enc:kms:v2:<name>:.
func renamed(index int, providers []Provider, o Options) error {
	for j, p := range providers {
		if p.KMS != nil && p.KMS.APIVersion == "v2" && p.KMS.ListensAt(o.Endpoint) {
			return refuse("second-name", "resources[%d].providers[%d].kms is the plugin at %s already, as %q: the name is part of every value in etcd and cannot change. Give --name %s",
				index, j, o.Endpoint, p.KMS.Name, p.KMS.Name)
		}
	}
	return nil
}

// leaving refuses an entry whose encryption is being disabled: identity is first, and
// other providers than ours still read.
func leaving(index int, providers []Provider, ours int) error {
	if providers[0].Kind != kindIdentity {
		return nil
	}
	for j, p := range providers {
		if p.Kind != kindIdentity && j != ours {
			return refuse("encryption-being-disabled", "resources[%d] writes plaintext, since identity is first, while %s is still read: so encryption is being disabled. Finish that (rewrite all objects, then remove %s), or move it to the front again",
				index, p, p)
		}
	}
	return nil
}

func place(index int) string {
	if index < 0 {
		return "not in the file"
	}
	return fmt.Sprintf("in resources[%d]", index)
}

// flag returns a list for --resources in a shell.
func flag(names []string) string {
	text := strings.Join(names, ",")
	if strings.Contains(text, "*") {
		return "'" + text + "'"
	}
	return text
}

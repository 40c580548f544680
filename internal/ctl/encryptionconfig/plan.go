// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"fmt"
	"slices"
	"strings"
)

// change is what is to be done to a configuration.
type change struct {
	kind  kind
	entry int // the place in resources
	from  int // of move: the place in providers
	to    int // of insert: the place in providers
}

type kind int

const (
	nothing kind = iota // it is there already
	insert              // a provider into an entry
	move                // our provider to the front of its entry
	extend              // another entry at the end
)

// plan decides what to do, or says why nothing should be done.
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
			return change{}, refuse("%s is in resources[%d] already, for %s, and a kms v2 name may stand only once in the file: give another --name for %s. The endpoint may be the same",
				c.Entries[entry].Providers[at], entry, list(c.Entries[entry].Resources), list(o.Resources))
		}
		return change{kind: extend, entry: index}, nil
	}
	providers := c.Entries[index].Providers
	if at >= 0 && entry != index {
		return change{}, refuse("%s is in resources[%d] already, for %s, and a kms v2 name may stand only once in the file: give another --name for %s in resources[%d]. The endpoint may be the same",
			c.Entries[entry].Providers[at], entry, list(c.Entries[entry].Resources), list(o.Resources), index)
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
	// Whoever writes can read as well: never back.
	return change{kind: nothing, entry: index}, nil
}

// find returns the entry that is for exactly these resources, or the number of
// entries if none is for any of them.
//
// An entry's providers are for all its resources. To take one out of it, its
// providers would have to be repeated, which kms v2 does not allow; to put one
// into it, all that is in etcd of that one would have to be readable by them.
func (c Configuration) find(resources []string) (int, error) {
	wanted := parseResources(resources)
	where := make([]int, len(wanted))
	for i, g := range wanted {
		where[i] = slices.IndexFunc(c.Entries, func(e Entry) bool { return slices.Contains(parseResources(e.Resources), g) })
		if where[i] >= 0 {
			continue
		}
		// As transformerFromOverrides in pkg/server/options/encryptionconfig
		// looks for it: a resource of its own would replace the wildcard, and
		// with it what has been reading so far.
		for j, e := range c.Entries {
			for _, wildcard := range g.within() {
				if slices.Contains(parseResources(e.Resources), wildcard) {
					return 0, refuse("%s is encrypted by resources[%d], as part of %q: an item of its own could not read what is in etcd. Give --resources %s",
						g, j, wildcard, flag(e.Resources))
				}
			}
		}
	}
	for i, index := range where {
		if index != where[0] {
			return 0, refuse("%s is %s and %s is %s: give them to one run each, with another --name for the second. The endpoint may be the same",
				wanted[0], place(where[0]), wanted[i], place(index))
		}
	}
	if where[0] < 0 {
		return len(c.Entries), nil
	}
	e := c.Entries[where[0]]
	for _, g := range parseResources(e.Resources) {
		if !slices.Contains(wanted, g) {
			return 0, refuse("resources[%d] is for %s as well, and its providers are for all that it names: give --resources %s", where[0], g, flag(e.Resources))
		}
	}
	return where[0], nil
}

// named returns where the provider of that name is, or -1 as provider.
func (c Configuration) named(o Options) (entry, provider int, err error) {
	for i, e := range c.Entries {
		for j, p := range e.Providers {
			if p.KMS == nil || p.KMS.Name != o.Name {
				continue
			}
			where := path{"resources", i, "providers", j, "kms"}
			switch {
			case p.KMS.APIVersion != "v2":
				return 0, 0, refuse("%s is %s: it has to stay as it is, to read what it wrote. Give another --name", where, p)
			case p.KMS.Endpoint != o.Endpoint:
				return 0, 0, refuse("%s is %s at %s, not at %s: give that --endpoint, or another --name for another plugin. If the same plugin has moved, change the endpoint there by hand",
					where, p, p.KMS.Endpoint, o.Endpoint)
			case o.Timeout != 0 && p.KMS.Timeout != o.Timeout:
				return 0, 0, refuse("%s is %s with a timeout of %s, not %s: change it there by hand, or leave --timeout out", where, p, p.KMS.Timeout, o.Timeout)
			}
			return i, j, nil
		}
	}
	return 0, -1, nil
}

// renamed refuses a second name for a plugin that is in the entry: what is in
// etcd has the first one in its prefix, k8s:enc:kms:v2:<name>:.
func renamed(index int, providers []Provider, o Options) error {
	for j, p := range providers {
		if p.KMS != nil && p.KMS.APIVersion == "v2" && p.KMS.Endpoint == o.Endpoint {
			return refuse("resources[%d].providers[%d].kms is the plugin at %s already, as %q: a name is part of every value in etcd and cannot be changed. Give --name %s",
				index, j, o.Endpoint, p.KMS.Name, p.KMS.Name)
		}
	}
	return nil
}

// leaving refuses an entry that is on its way to plaintext: identity first, while
// other providers than ours read.
func leaving(index int, providers []Provider, ours int) error {
	if providers[0].Kind != kindIdentity {
		return nil
	}
	for j, p := range providers {
		if p.Kind != kindIdentity && j != ours {
			return refuse("resources[%d] writes plaintext, since identity is first, while %s is still read: that is how encryption is given up. Finish that, with everything rewritten and %s removed, or put it first again",
				index, p, p)
		}
	}
	return nil
}

func place(index int) string {
	if index < 0 {
		return "in no item of the file"
	}
	return fmt.Sprintf("in resources[%d]", index)
}

func list(names []string) string { return strings.Join(names, ", ") }

// flag is a list as a shell takes it for --resources.
func flag(names []string) string {
	text := strings.Join(names, ",")
	if strings.Contains(text, "*") {
		return "'" + text + "'"
	}
	return text
}

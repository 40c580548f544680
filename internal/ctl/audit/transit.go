// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// transitKeys sums r.KeyIDs by transit key, and finds the highest safe
// min_decryption_version of each. r.Unattributed must be set: any of these values may
// need any of the keys.
func transitKeys(r *Report) []TransitKey {
	all := []TransitKey{}
	for _, k := range r.KeyIDs {
		if k.Key == "" {
			continue
		}
		i := slices.IndexFunc(all, func(t TransitKey) bool { return t.Engine == k.Engine && t.Key == k.Key })
		if i < 0 {
			i = len(all)
			all = append(all, TransitKey{Engine: k.Engine, Key: k.Key})
		}
		all[i].Versions = summed(all[i].Versions, TransitVersion{k.Version, k.Objects, k.Seeds})
	}
	unknown := undecided(r)
	for i := range all {
		if all[i].Unknown = unknown; unknown == "" {
			all[i].MayBecome = oldest(all[i].Versions, r.Unattributed)
		}
	}
	return all
}

// unattributed sums the values that name a version of a transit key, but not the key:
// those of KMS v1, and of plugins with other key_ids than Trousseau.
func unattributed(r *Report) []TransitVersion {
	all := []TransitVersion{}
	for _, k := range r.KeyIDs {
		if k.Key == "" && k.WrappedBy > 0 {
			all = summed(all, TransitVersion{k.WrappedBy, k.Objects, k.Seeds})
		}
	}
	for _, res := range r.everything() {
		for _, g := range res.Groups {
			if stored.Form(g.Form) == stored.KMSv1 && g.WrappedBy > 0 {
				all = summed(all, TransitVersion{g.WrappedBy, g.Objects, g.Seeds})
			}
		}
	}
	return all
}

// summed adds v to the versions, which are sorted with the newest first.
func summed(versions []TransitVersion, v TransitVersion) []TransitVersion {
	i, found := slices.BinarySearchFunc(versions, v, func(x, y TransitVersion) int { return cmp.Compare(y.Version, x.Version) })
	if !found {
		return slices.Insert(versions, i, v)
	}
	versions[i].Objects += v.Objects
	versions[i].Seeds += v.Seeds
	return versions
}

// oldest returns the lowest version in the lists; 0 if there is none.
func oldest(lists ...[]TransitVersion) (version int) {
	for _, v := range slices.Concat(lists...) {
		if version == 0 || v.Version < version {
			version = v.Version
		}
	}
	return version
}

// undecided returns why the oldest version of any key that is needed is unknown; "" if
// it is known. A value counts as needing no key only if it says so itself.
func undecided(r *Report) string {
	switch {
	case r.Source.Asked != nil:
		return "only " + strings.Join(r.Source.Asked, ", ") + " was audited, and other resources may need older versions: audit without --resource"
	case r.Source.OutsideUnread:
		return "the etcd user may not read outside of " + strings.Join(r.Source.Prefixes, ", ") + ", and what is there may need older versions: audit with a user that may read all keys, or audit a snapshot"
	}
	for _, res := range r.everything() {
		for _, g := range res.Groups {
			switch form := stored.Form(g.Form); {
			case form == stored.Malformed:
				return fmt.Sprintf("%s of %s cannot be decoded, and may need any version: restore or delete malformed objects, then audit again", text.Count(g.Objects, "object"), res.Name)
			case (form == stored.KMSv1 || form == stored.KMSv2) && g.WrappedBy == 0:
				return fmt.Sprintf("%s of %s, stored by %s under provider %s, may need any version, because the wrapped key does not begin with vault:v and a version: re-encrypt them first", text.Count(g.Objects, "object"), res.Name, spoken(form), g.Name)
			}
		}
	}
	return ""
}

// spoken is a form as in a sentence.
func spoken(form stored.Form) string { return strings.Replace(string(form), "kms", "KMS", 1) }

// recreated returns the key_ids that have the version of an earlier one but another
// creation time: their key was deleted and recreated under its name.
func recreated(r *Report) []KeyID {
	created := make(map[string]*time.Time)
	var all []KeyID
	for _, k := range r.KeyIDs {
		if k.Created == nil {
			continue
		}
		version := fmt.Sprintf("%s/%s/v%d", k.Engine, k.Key, k.Version)
		switch before := created[version]; {
		case before == nil:
			created[version] = k.Created
		case !before.Equal(*k.Created):
			all = append(all, k)
		}
	}
	return all
}

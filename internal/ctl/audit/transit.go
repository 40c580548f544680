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
// min_decryption_version of each.
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
		versions := &all[i].Versions
		j := slices.IndexFunc(*versions, func(v TransitVersion) bool { return v.Version == k.Version })
		if j < 0 {
			j = len(*versions)
			*versions = append(*versions, TransitVersion{Version: k.Version})
		}
		(*versions)[j].Objects += k.Objects
		(*versions)[j].Seeds += k.Seeds
	}
	for i := range all {
		key := &all[i]
		slices.SortFunc(key.Versions, func(x, y TransitVersion) int { return cmp.Compare(y.Version, x.Version) })
		if key.Unknown = undecided(r, key); key.Unknown == "" {
			key.MayBecome = key.Versions[len(key.Versions)-1].Version
		}
	}
	return all
}

// undecided returns why the oldest version of a key that is needed is unknown; "" if
// it is known.
func undecided(r *Report, key *TransitKey) string {
	if r.Source.Asked != nil {
		return "only " + strings.Join(r.Source.Asked, ", ") + " was audited, and other resources may need older versions: audit without --resource"
	}
	ours := make(map[string]bool) // providers
	for _, k := range r.KeyIDs {
		if k.Engine == key.Engine && k.Key == key.Key {
			ours[k.Provider] = true
		}
	}
	for _, k := range r.KeyIDs {
		if ours[k.Provider] && k.Key == "" {
			return fmt.Sprintf("%s under provider %s and key_id %s, which is not one of Trousseau: which version they need is unknown", text.Count(k.Objects, "object"), k.Provider, k.KeyID)
		}
	}
	for _, res := range r.Resources {
		for _, g := range res.Groups {
			switch {
			case g.Form == string(stored.Malformed):
				return fmt.Sprintf("%s of %s cannot be decoded, and may need any version: restore or delete malformed objects, then audit again", text.Count(g.Objects, "object"), res.Name)
			case g.Form == string(stored.KMSv1) && ours[g.Name]:
				return fmt.Sprintf("%s of %s stored by KMS v1 under the same provider name may need any version: re-encrypt them first", text.Count(g.Objects, "object"), res.Name)
			}
		}
	}
	return ""
}

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
